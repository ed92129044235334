import tracemalloc
from typing import Any

import numpy as np
import pytest

from detection import by_formula
from foveate.detection import nms as module
from foveate.detection.boxes import iou
from foveate.detection.nms import nms, select
from foveate.errors import UsageError

NONE = np.zeros((0, 4), np.float32)


def random_set(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes on a coarse grid, so that many are equal, touching or empty, with few different scores, some NaN."""
    corner, side = rng.integers(0, 4, (count, 2)), rng.integers(0, 6, (count, 2))
    scores = rng.choice([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, 1.0, np.nan], count)
    return (
        np.concatenate([corner, corner + side], 1).astype(np.float32),
        scores.astype(np.float32),
        rng.integers(0, 2, count),
    )


def by_definition(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float) -> list[int]:
    return by_formula.nms(boxes.tolist(), scores.tolist(), labels.tolist(), threshold)


def test_by_hand() -> None:
    """Box 0 has an IoU of 8 / 10 with box 1 of its class.

    Box 2 has another class, box 3 overlaps none, only box 1 suppresses box 4 but is not kept, box 5 has no score.
    """
    boxes = np.array(
        [[0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 6], [0, 0, 10, 10]], float
    )
    scores, labels = np.array([0.9, 0.8, 0.7, 0.95, 0.6, np.nan]), np.array([0, 0, 1, 0, 0, 0])
    assert nms(boxes, scores, labels, 0.7).tolist() == [3, 0, 2, 4]
    assert nms(boxes, scores, labels, 0.5).tolist() == [3, 0, 2]
    assert nms(boxes, scores, labels, 0.8).tolist() == [
        3,
        0,
        1,
        2,
        4,
    ]  # an IoU equal to the threshold does not suppress
    assert nms(boxes, scores, labels, 0.7, max_det=2).tolist() == [3, 0]


@pytest.mark.parametrize("block", [64, 2])
@pytest.mark.reliability(24)
def test_ten_thousand_random_sets_are_as_defined(monkeypatch: pytest.MonkeyPatch, tried: Any, block: int) -> None:
    """Half of them use small blocks, so that candidates are compared with kept boxes of every earlier block."""
    for name, value in (("FIRST_BLOCK", block), ("LARGEST_BLOCK", 2 * block), ("PAIRS", 3 * block)):
        monkeypatch.setattr(module, name, value)
    rng = np.random.default_rng(block)
    for _ in range(5000):
        candidates, threshold = (
            random_set(rng, int(rng.integers(0, 14))),
            float(rng.choice([0.0, 0.2, 0.45, 0.5, 0.65, 1.0])),
        )
        wanted = by_definition(*candidates, threshold)
        assert nms(*candidates, threshold).tolist() == wanted
        assert nms(*candidates, threshold, max_det=3).tolist() == wanted[:3]
    tried(5000)


@pytest.mark.parametrize("seed", range(3))
def test_large_sets_are_as_defined(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corner, side = rng.uniform(0, 100, (600, 2)), rng.uniform(5, 40, (600, 2))
    boxes, labels = np.concatenate([corner, corner + side], 1).astype(np.float32), rng.integers(0, 2, 600)
    scores = rng.random(600).astype(np.float32)
    assert nms(boxes, scores, labels, 0.5, max_det=600).tolist() == by_definition(boxes, scores, labels, 0.5)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("iou", lambda a, b: 1.0000001 * ORIGINAL(a, b)),  # suppresses at the threshold itself
        (
            "_first_come",
            lambda covers: np.flatnonzero(~np.triu(covers, 1).any(0)),
        ),  # suppressed by boxes that are not kept
        ("_covers", lambda boxes, labels, *rest: COVERS(boxes, labels * 0, *rest)),  # across classes
    ],
)
def test_a_planted_mistake_is_seen(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any) -> None:
    monkeypatch.setattr(module, name, wrong)
    rng = np.random.default_rng(0)
    sets = [random_set(rng, 13) for _ in range(200)]
    assert any(nms(*candidates, 0.5).tolist() != by_definition(*candidates, 0.5) for candidates in sets)
    monkeypatch.undo()
    assert all(nms(*candidates, 0.5).tolist() == by_definition(*candidates, 0.5) for candidates in sets)


ORIGINAL, COVERS = iou, module._covers


def test_nothing_to_keep() -> None:
    for count in (0, 4):
        assert nms(np.zeros((count, 4)), np.full(count, np.nan), np.zeros(count)).tolist() == []


def peak(count: int) -> int:
    """Return the bytes that `nms` needs at most if few boxes overlap and hundreds are kept."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + 20], 1).astype(np.float32)
    scores, labels = rng.random(count).astype(np.float32), np.zeros(count, np.int64)
    nms(boxes, scores, labels)
    tracemalloc.start()
    nms(boxes, scores, labels)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_memory_grows_with_the_candidates_and_not_with_their_square() -> None:
    """Each candidate adds a few numbers; one matrix of 20,000 x 20,000 booleans would be 400 MB."""
    few, many = peak(2_500), peak(20_000)
    assert many - few <= 17_500 * 64
    assert many < 8e6


def test_select_by_hand() -> None:
    """Above 0.25 are box 0 with both classes and box 1 with class 1, which box 0 suppresses; box 2 is at 0.25."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60], [80, 0, 90, 9]])
    scores = np.array([[0.5, 0.75], [0, 0.625], [0.25, 0], [0, 1]])
    found = select(boxes, scores, conf=0.25, threshold=0.5)
    assert found[0].tolist() == [[80, 0, 90, 9], [0, 0, 10, 10], [0, 0, 10, 10]]
    assert found[1].tolist() == [1, 0.75, 0.5]
    assert found[2].tolist() == [1, 1, 0]
    assert [part.dtype for part in found] == [np.float32, np.float32, np.int64]
    assert len(select(boxes, scores, conf=0.25, threshold=0.5, most=2)[0]) == 2


def test_select_of_nothing() -> None:
    boxes, scores, labels = select(NONE, np.zeros((0, 3)))
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
    assert len(select(np.ones((5, 4)), np.full((5, 2), np.nan))[0]) == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_wrong_threshold_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        nms(NONE, np.zeros(0), np.zeros(0), threshold)


@pytest.mark.parametrize("conf", [-0.1, 1.5, float("nan")])
def test_a_wrong_confidence_is_refused(conf: float) -> None:
    with pytest.raises(UsageError, match="a confidence from 0 to 1"):
        select(NONE, np.zeros((0, 3)), conf=conf)


@pytest.mark.parametrize("max_det", [0, -1, 2.5, True])
def test_a_wrong_number_of_boxes_is_refused(max_det: Any) -> None:
    with pytest.raises(UsageError, match="max_det as a whole number >= 1"):
        nms(NONE, np.zeros(0), np.zeros(0), max_det=max_det)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(UsageError, match="for each box"):
        nms(NONE, np.zeros(1), np.zeros(0))
