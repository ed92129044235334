import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import foveate
from foveate.bind.torch.parts import Gate
from foveate.errors import UsageError
from foveate.gates.pointing_game import cover, play_pointing_game

IMAGES = torch.zeros(3, 1, 16, 24)
BOXES = np.array([[2, 3, 9, 11], [0, 0, 24, 16], [10.5, 1, 12, 7.25]])


class Looks(nn.Module):
    """A model of one gate with given logits (N or 1, 1 or C, h, w)."""

    def __init__(self, kind: str, logits: torch.Tensor):
        super().__init__()
        self.gate = Gate(kind)  # pyright: ignore[reportArgumentType]
        self.logits = nn.Parameter(logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.logits.expand(len(x), -1, -1, -1)
        size = (logits.shape[2] if self.gate.kind != "column" else 5, logits.shape[3] if self.gate.kind != "row" else 5)
        return self.gate(torch.ones(len(x), logits.shape[1], *size), logits)


@pytest.mark.parametrize("kind", ["spatial", "row", "column"])
@pytest.mark.parametrize("cells", [1, 3, 8, 16])
@pytest.mark.parametrize("logit", [-200.0, -1.3, 0.1])
def test_a_constant_gate_is_chance_exactly(kind: str, cells: int, logit: float):
    shape = {"spatial": (1, 1, cells, cells + 2), "row": (1, 4, cells, 1), "column": (1, 4, 1, cells)}[kind]
    logits = torch.full(shape, logit) if kind == "spatial" else torch.arange(4.0).view(1, 4, 1, 1).expand(shape) + logit
    found = play_pointing_game(Looks(kind, logits.clone()), IMAGES, BOXES)[kind]
    height, width = (BOXES[:, 3] - BOXES[:, 1]) / 16, (BOXES[:, 2] - BOXES[:, 0]) / 24
    area = {"spatial": height * width, "row": height, "column": width}[kind].mean()
    assert found["ratio"] == 1
    assert found["mass"] == found["area"] == pytest.approx(area, abs=1e-12)
    assert found["pointing"] == pytest.approx(area, abs=1e-12)


def test_a_gate_open_only_in_the_box_is_all_inside():
    logits = torch.full((1, 1, 4, 6), -1000.0)
    logits[0, 0, 1, 2] = 5.0
    found = play_pointing_game(Looks("spatial", logits), IMAGES[:1], [[8, 4, 12, 8]])["spatial"]
    assert found["mass"] == pytest.approx(1)
    assert found["pointing"] == pytest.approx(1)
    assert found["area"] == pytest.approx(1 / 24)
    assert found["ratio"] == pytest.approx(24)


def test_a_gate_open_only_elsewhere_is_all_outside():
    logits = torch.full((1, 1, 4, 6), -1000.0)
    logits[0, 0, 3, 5] = 5.0
    found = play_pointing_game(Looks("spatial", logits), IMAGES[:1], [[8, 4, 12, 8]])["spatial"]
    assert found["mass"] == pytest.approx(0, abs=1e-12)
    assert found["pointing"] == 0


@pytest.mark.parametrize(("kind", "cell", "box"), [("row", 1, [0, 4, 3, 8]), ("column", 2, [8, 0, 12, 2])])
def test_a_row_or_column_gate_is_judged_by_its_own_extent(kind: str, cell: int, box: list[float]):
    logits = torch.full((1, 2, 4, 1) if kind == "row" else (1, 2, 1, 6), -1000.0)
    logits.flatten(2)[..., cell] = 3.0
    found = play_pointing_game(Looks(kind, logits), IMAGES[:1], [box])
    assert list(found) == [kind]
    assert found[kind]["mass"] == pytest.approx(1)
    assert found[kind]["pointing"] == 1


def test_ties_and_half_covered_cells_count_by_their_share():
    logits = torch.full((1, 1, 1, 4), -1000.0)
    logits[0, 0, 0, :2] = 1.0  # cells 0 and 1 tie: 6 px each
    found = play_pointing_game(Looks("spatial", logits), IMAGES[:1], [[0, 0, 9, 16]])["spatial"]
    assert found["pointing"] == pytest.approx((1 + 0.5) / 2)
    assert found["mass"] == pytest.approx((1 + 0.5) / 2)


def test_the_gate_that_acts_counts_and_its_negative_values_do_not():
    model = Looks("spatial", torch.tensor([[[[-1000.0, 1000.0]]]]))
    model.gate = Gate("spatial", scale=-2.0)  # the gate is [0, -2]
    assert play_pointing_game(model, IMAGES[:1], [[0, 0, 12, 16]])["spatial"]["mass"] == pytest.approx(
        0.5
    )  # the same as for a gate that is 0 everywhere
    model = Looks("spatial", torch.tensor([[[[0.0, 1000.0]]]]))
    model.gate = Gate("spatial", scale=2.0)  # the gate is [1, 2]
    assert play_pointing_game(model, IMAGES[:1], [[0, 0, 12, 16]])["spatial"]["mass"] == pytest.approx(1 / 3)
    assert play_pointing_game(model, IMAGES[:1], [[12, 0, 24, 16]])["spatial"]["pointing"] == 1


sides = st.floats(-3, 23)


@given(st.integers(1, 9), st.integers(1, 9), st.lists(st.tuples(sides, sides, sides, sides), max_size=5))
def test_cells_are_covered_by_the_union_of_the_boxes(
    rows: int, columns: int, corners: list[tuple[float, float, float, float]]
):
    boxes = np.array([(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]).reshape(-1, 4).round()
    found = cover(boxes, (12, 18), (rows, columns))
    pixels = np.zeros((12, 18))
    for left, top, right, bottom in boxes.clip(0).astype(int):
        pixels[top:bottom, left:right] = 1
    fine = pixels.repeat(rows, 0).repeat(columns, 1)  # whole pixels of 12 * rows by 18 * columns fill each cell
    np.testing.assert_allclose(found, fine.reshape(rows, 12, columns, 18).mean((1, 3)), atol=1e-12)


def test_many_boxes_count_once_where_they_overlap():
    logits = torch.full((1, 1, 4, 6), -1000.0)
    logits[0, 0, 1, 2] = logits[0, 0, 3, 5] = 5.0
    boxes = [[[8, 4, 12, 8], [8, 4, 11, 7], [0, 0, 4, 4]], np.zeros((0, 4)), [[0, 0, 24, 16]]]
    found = play_pointing_game(Looks("spatial", logits), IMAGES, boxes)["spatial"]
    assert found["mass"] == pytest.approx((0.5 + 1) / 2)
    assert found["area"] == pytest.approx((2 / 24 + 1) / 2)
    assert found["pointing"] == pytest.approx((0.5 + 1) / 2)


@pytest.mark.parametrize("kind", ["spatial", "row", "column"])
def test_a_border_counts_for_nothing(kind: str):
    shape = {"spatial": (1, 1, 4, 6), "row": (1, 2, 4, 1), "column": (1, 2, 1, 6)}[kind]
    open_on_the_border = torch.full(shape, 1.0)
    open_on_the_border[:, :, 0] = 50.0 if kind != "column" else 1.0
    open_on_the_border[..., -1] = 50.0 if kind != "row" else 1.0
    picture = [[0, 4, 20, 16]]
    found = play_pointing_game(Looks(kind, open_on_the_border), IMAGES[:1], [[[0, 0, 10, 7]]], within=picture)[kind]
    height, width = 3 / 12, 10 / 20
    assert found["area"] == pytest.approx({"spatial": height * width, "row": height, "column": width}[kind], abs=1e-12)
    assert found["ratio"] == pytest.approx(1)
    assert found["pointing"] == pytest.approx(found["area"])


def test_batches_do_not_matter_and_the_model_is_unchanged():
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), foveate.attention("cbam", 8, reduction=4), foveate.attention("coordinate", 8)
    ).train()
    model[1].eval()
    images, boxes = torch.randn(7, 1, 16, 24), np.tile(BOXES[0], (7, 1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole, parts = (
        play_pointing_game(model, images, boxes),
        play_pointing_game(model, [(image, 0) for image in images], boxes, batch=3),
    )
    assert set(whole) == {"spatial", "row", "column"}
    for kind in whole:
        assert whole[kind] == pytest.approx(parts[kind], abs=1e-6)
    assert [module.training for module in model] == [True, False, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_sites_are_averaged():
    sharp = torch.full((1, 1, 1, 2), -1000.0)
    sharp[..., 0] = 1000.0
    model = nn.Sequential(Looks("spatial", sharp), Looks("spatial", torch.zeros(1, 1, 1, 2)))
    found = play_pointing_game(model, IMAGES[:1], [[0, 0, 12, 16]])["spatial"]
    assert found["mass"] == pytest.approx((1 + 0.5) / 2)


def test_boxes_without_area_and_models_without_places():
    assert (
        play_pointing_game(Looks("spatial", torch.zeros(1, 1, 2, 2)), IMAGES[:2], [[3, 3, 3, 9], [30, 0, 40, 9]]) == {}
    )
    assert play_pointing_game(nn.Sequential(foveate.attention("se", 1, reduction=1)), IMAGES, BOXES) == {}


@pytest.mark.parametrize("boxes", [[[0, 0, 1, 1]], [[0, 0, 1]] * 3, [[0, 0, 1, float("nan")]] * 3])
def test_boxes_that_do_not_fit_are_refused(boxes: list[list[float]]):
    with pytest.raises(UsageError, match="boxes as finite"):
        play_pointing_game(nn.ReLU(), IMAGES, boxes)
