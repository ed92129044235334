from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detection import by_formula
from detection.examples import CLASSES, HEADS, SIZE, random_boxes
from foveate.detection.assign import FIT, LABEL, POSITIVE, WEIGHT, assign, assign_batch
from foveate.detection.boxes import centred_iou
from foveate.detection.heads import Head, make_heads
from foveate.errors import UsageError

ONE = (Head(((16, 16), (40, 10)), 16),)


def places(target: np.ndarray) -> list[tuple[int, ...]]:
    """Return the (anchor, row, column) of the positives."""
    return [tuple(place) for place in np.argwhere(target[..., POSITIVE]).tolist()]


def test_a_box_of_the_size_of_an_anchor_by_hand() -> None:
    """Three anchors fit a box of 37 x 58.

    Its IoU is 621 / 2146 with 23 x 27, 1 with 37 x 58, 2146 / 6642 with 81 x 82 and 2146 / 22815 with 135 x 169. Its
    centre (118.5, 129) is in column 3 and row 4 of the coarse head, and in column 7 and row 8 of the fine one.
    """
    coarse, fine = assign(np.array([[100, 100, 137, 158]]), np.array([5]), make_heads(), (416, 416), 20)
    assert coarse.shape == (3, 13, 13, 7)
    assert fine.shape == (3, 26, 26, 7)
    assert coarse.dtype == np.float32
    assert places(coarse) == [(0, 4, 3)]
    assert places(fine) == [(0, 8, 7), (1, 8, 7), (2, 8, 7)]
    assert fine[1, 8, 7].tolist() == [100, 100, 137, 158, 1, 1, 5]
    assert fine[..., WEIGHT].all()


def test_a_box_that_no_anchor_fits_has_the_best() -> None:
    """The IoU of 4 x 4 is 16 / 621 with 23 x 27, the smallest anchor in use."""
    coarse, fine = assign(np.array([[0, 0, 4, 4]]), np.array([0]), make_heads(), (416, 416), 20)
    assert places(coarse) == []
    assert places(fine) == [(0, 0, 0)]


def test_an_anchor_of_two_heads_is_best_in_both() -> None:
    """The IoU of 100 x 4 is 320 / 6480 with 80 x 80, which is below the threshold."""
    heads = (Head(((80, 80),), 32), Head(((80, 80),), 16))
    coarse, fine = assign(np.array([[0, 0, 100, 4]]), np.array([0]), heads, (128, 64), 1)
    assert (places(coarse), places(fine)) == ([(0, 0, 1)], [(0, 0, 3)])


def test_of_two_boxes_in_one_cell_the_better_fit_stays() -> None:
    """Both centres are in cell 0; the IoU with the square anchor is 144 / 256 for 12 x 12 and 240 / 256 for 16 x 15."""
    boxes, labels = np.array([[2, 2, 14, 14], [0, 0, 16, 15]]), np.array([0, 1])
    for order in ([0, 1], [1, 0]):
        (target,) = assign(boxes[order], labels[order], ONE, (32, 32), 2)
        assert target[0, 0, 0, LABEL] == 1
        assert target[0, 0, 0, :4].tolist() == [0, 0, 16, 15]


def test_of_two_equal_fits_the_first_stays() -> None:
    (target,) = assign(
        np.array([[0, 0, 14, 14], [1, 1, 15, 15], [2, 2, 16, 16]]), np.array([2, 0, 1]), ONE, (32, 32), 3
    )
    assert target[0, 0, 0, LABEL] == 2


def test_cells_with_their_centre_in_an_ignored_box_have_no_weight() -> None:
    """Boxes are half-open: of centres at 8 and 24, [0, 24) holds the first. A cell with a positive keeps its weight."""
    (target,) = assign(np.array([[0, 0, 16, 16]]), np.array([0]), ONE, (32, 32), 1, np.array([[0, 0, 24, 32]]))
    assert target[0, ..., WEIGHT].tolist() == [[1, 1], [0, 1]]
    assert target[1, ..., WEIGHT].tolist() == [[1, 1], [0, 1]]
    assert target[0, ..., POSITIVE].tolist() == [[1, 0], [0, 0]]
    (other,) = assign(np.zeros((0, 4)), np.zeros(0, int), ONE, (32, 32), 1, np.array([[0, 0, 24, 32]]))
    assert other[1, ..., WEIGHT].tolist() == [[0, 1], [0, 1]]


def test_the_cell_of_a_small_ignored_box_has_no_weight() -> None:
    (target,) = assign(np.zeros((0, 4)), np.zeros(0, int), ONE, (32, 32), 1, np.array([[17, 1, 22, 6]]))
    assert target[0, ..., WEIGHT].tolist() == [[1, 0], [1, 1]]
    assert target[1, ..., WEIGHT].tolist() == [[1, 0], [1, 1]]


def test_no_boxes_and_boxes_without_area() -> None:
    for boxes in (np.zeros((0, 4)), np.array([[5, 5, 5, 9], [9, 9, 5, 5]])):
        (target,) = assign(boxes, np.zeros(len(boxes), int), ONE, (32, 32), 1)
        assert not target[..., POSITIVE].any()
        assert target[..., WEIGHT].all()


def test_a_centre_on_the_far_border_is_in_the_last_cell() -> None:
    (target,) = assign(np.array([[24, 24, 40, 40]]), np.array([0]), ONE, (32, 32), 1)
    assert (0, 1, 1) in places(target)


def test_a_batch_has_the_targets_of_its_images() -> None:
    rng = np.random.default_rng(0)
    truths = [
        (random_boxes(rng, count), rng.integers(0, CLASSES, count), rng.random(count) < 0.5) for count in (4, 0, 3)
    ]
    found = assign_batch(truths, HEADS, SIZE, CLASSES)
    for image, (boxes, labels, ignored) in enumerate(truths):
        alone = assign(boxes[~ignored], labels[~ignored], HEADS, SIZE, CLASSES, boxes[ignored])
        assert all(np.array_equal(targets[image], target) for targets, target in zip(found, alone, strict=True))


def by_the_rules(boxes: np.ndarray, heads: Any) -> list[dict[tuple[int, ...], int]]:
    """Return for each head the box at each (anchor, row, column), computed by loops."""
    all_anchors = [anchor for head in heads for anchor in head.anchors]

    def centred(width: float, height: float) -> list[float]:
        return [-width / 2, -height / 2, width / 2, height / 2]

    fits = [
        [by_formula.iou(centred(x1 - x0, y1 - y0), centred(*anchor)) for anchor in all_anchors]
        for x0, y0, x1, y1 in boxes
    ]
    found = []
    for head in heads:
        cells: dict[tuple[int, ...], int] = {}
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            for a, anchor in enumerate(head.anchors):
                fit = fits[i][all_anchors.index(anchor)]
                place = (a, int((y0 + y1) / 2 // head.stride), int((x0 + x1) / 2 // head.stride))
                held = fits[cells[place]][all_anchors.index(anchor)] if place in cells else 0
                if (fit > FIT or fit >= max(fits[i]) - 1e-12) and fit > held + 1e-12:
                    cells[place] = i
        found.append(cells)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_assignment_is_what_the_rules_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes, ignored = random_boxes(rng, 12).astype(float), random_boxes(rng, 2)
    labels = rng.integers(0, CLASSES, 12)
    targets = assign(boxes, labels, HEADS, SIZE, CLASSES, ignored)
    for head, target, wanted in zip(HEADS, targets, by_the_rules(boxes, HEADS), strict=True):
        assert places(target) == sorted(wanted)
        for place, i in wanted.items():
            assert target[place].tolist() == [*boxes[i].tolist(), 1, 1, labels[i]]
        for place in np.ndindex(*target.shape[:3]):
            x, y = (place[2] + 0.5) * head.stride, (place[1] + 0.5) * head.stride
            held = any(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in ignored)
            held |= any(
                place[1:] == ((y0 + y1) / 2 // head.stride, (x0 + x1) / 2 // head.stride) for x0, y0, x1, y1 in ignored
            )
            assert target[place][WEIGHT] == (place in wanted or not held)


@pytest.mark.parametrize("mistake", ["threshold", "best", "stride", "size"])
def test_a_planted_mistake_is_seen(monkeypatch: pytest.MonkeyPatch, mistake: str) -> None:
    wrong_heads = HEADS
    match mistake:
        case "threshold":
            monkeypatch.setattr("foveate.detection.assign.FIT", FIT + 0.05)
        case "best":
            monkeypatch.setattr("foveate.detection.assign.FIT", 0.0)
        case "stride":
            wrong_heads = (HEADS[0], replace(HEADS[1], stride=8))
        case "size":
            monkeypatch.setattr(
                "foveate.detection.assign.centred_iou", lambda sizes, anchors: centred_iou(sizes[:, ::-1], anchors)
            )
    seen = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        boxes = random_boxes(rng, 12).astype(float)
        targets = assign(boxes, rng.integers(0, CLASSES, 12), wrong_heads, SIZE, CLASSES)
        seen += [
            places(target) != sorted(cells) for target, cells in zip(targets, by_the_rules(boxes, HEADS), strict=True)
        ]
    assert any(seen)


@pytest.mark.parametrize(
    ("boxes", "labels", "size", "match"),
    [
        (np.zeros((2, 4)), np.zeros(1, int), (32, 32), "one label"),
        (np.ones((1, 4)), np.array([2]), (32, 32), "labels from 0 to 1"),
        (np.ones((1, 4)), np.array([-1]), (32, 32), "labels from 0 to 1"),
        (np.full((1, 4), np.nan), np.array([0]), (32, 32), "finite"),
        (np.zeros((0, 4)), np.zeros(0, int), (32, 40), "stride 16 divides"),
    ],
)
def test_wrong_boxes_labels_and_sizes_are_refused(
    boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        assign(boxes, labels, ONE, size, 2)
