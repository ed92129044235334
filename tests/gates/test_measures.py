"""The numbers of gates, against their definitions."""

import numpy as np
import pytest

from foveate.gates.measures import Spread, entropy, measure

RNG = np.random.default_rng(0)


def test_entropy_is_1_for_a_uniform_gate_and_0_for_a_single_cell() -> None:
    one = np.zeros((1, 3, 4))
    one[0, 1, 2] = 0.7
    halves = np.array([[0.2, 0.2, 0, 0]])
    assert entropy(np.full((1, 3, 4), 0.3)) == pytest.approx([1])
    assert entropy(one) == pytest.approx([0])
    assert entropy(halves) == pytest.approx([0.5])
    assert entropy(halves - 1e-9) == pytest.approx([0.5])  # negative cells count as 0
    assert np.isnan(entropy(np.zeros((1, 4)))).all()
    assert np.isnan(entropy(np.ones((1, 1)))).all()


def test_saturated_values_lie_within_a_percent_of_an_end() -> None:
    gate = np.array([0.0, 0.019, 0.021, 1.0, 1.979, 1.981, 2.0, 1.5]).reshape(1, 8, 1, 1)
    assert measure("channel", gate, (0, 2))[0, 3] == 4 / 8
    assert np.isnan(measure("channel", gate)[0, 3])


def test_inside_is_the_share_of_each_picture_in_its_boxes() -> None:
    gate = np.ones((3, 1, 4, 4))
    gate[0, 0, :2, :2] = 5
    boxes = [[[0, 0, 8, 8]], [[0, 0, 8, 16], [0, 0, 4, 4]], np.full((1, 4), np.nan)]
    found = measure("spatial", gate, None, boxes, (16, 16))[:, :2]
    assert found[:2] == pytest.approx(np.array([[20 / 32, 0.25], [0.5, 0.5]]))
    assert np.isnan(found[2]).all()
    row = np.array([3.0, 1.0, 1.0, 1.0]).reshape(1, 1, 4, 1)
    assert measure("row", row, None, [[[0, 0, 2, 4]]], (16, 16))[0, :2] == pytest.approx([0.5, 0.25])
    assert np.isnan(measure("channel", np.ones((1, 4, 1, 1)), None, [[[0, 0, 8, 8]]], (16, 16))[0, :2]).all()


def test_a_border_does_not_count() -> None:
    gate = np.ones((1, 1, 4, 4))
    gate[0, 0, :, 0] = 100  # in the border
    gate[0, 0, :2, 1] = 3
    found = measure("spatial", gate, None, [[[0, 0, 8, 8]]], (16, 16), within=[[4, 0, 12, 16]])
    assert found[0, :2] == pytest.approx([6 / 12, 0.25])


@pytest.mark.parametrize(
    ("kind", "gate", "why"),
    [
        ("spatial", np.full((4, 1, 3, 3), 1.004), "changes the features by less than 1 %"),
        ("spatial", np.full((4, 1, 3, 3), 0.5), "constant: 0.5 everywhere, for every image"),
        ("channel", np.linspace(0.2, 0.8, 4).repeat(6).reshape(4, 6, 1, 1), "constant within each image"),
        ("channel", np.tile(np.linspace(0.2, 0.8, 6).reshape(1, 6, 1, 1), (4, 1, 1, 1)), "the same for every image"),
        ("pairwise", np.ones((4, 1, 3, 3)), "reads every position alike"),
        ("full", RNG.uniform(0.2, 0.8, (4, 6, 3, 3)), ""),
        ("full", RNG.uniform(0.2, 0.8, (1, 6, 3, 3)), ""),  # of one image nobody knows
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_dead_gates_are_named(kind: str, gate: np.ndarray, why: str, batch: int) -> None:
    spread = Spread(kind)
    for at in range(0, len(gate), batch):
        spread.add(gate[at : at + batch])
    assert spread.dead == why
