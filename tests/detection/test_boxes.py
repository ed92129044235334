import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection import by_formula
from foveate.detection.boxes import Letterbox, areas, centred_iou, iou
from foveate.detection.detections import Detections
from foveate.errors import UsageError

A = np.array([[0, 0, 2, 2], [0, 0, 4, 2], [5, 5, 5, 9], [3, 3, 1, 1]], float)
B = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 5, 9]], float)


def test_iou_by_hand() -> None:
    """2 x 2 shifted by 1: 1 / (4 + 4 - 1); with 4 x 2: 2 / (8 + 4 - 2) and 4 / 8; an empty box: 0, even with itself."""
    assert iou(A, B).tolist() == [[1 / 7, 1, 0], [1 / 5, 1 / 2, 0], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.float32])
def test_boxes_may_be_of_any_number(kind: type) -> None:
    """Also whole pixels: 2 x 2 at (1, 1) and at (0, 0), and 200 x 200, whose area a byte cannot hold."""
    boxes = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 205, 205]], kind)
    np.testing.assert_allclose(iou(boxes, boxes), [[1, 1 / 7, 0], [1 / 7, 1, 0], [0, 0, 1]])
    assert areas(boxes).tolist() == [4, 4, 40_000]
    np.testing.assert_allclose(centred_iou(boxes[:, 2:], boxes[1:2, 2:]), [[4 / 9], [1], [4 / 205**2]])


def test_iou_of_empty_sets() -> None:
    none = np.zeros((0, 4), np.float32)
    assert iou(A, none).shape == (4, 0)
    assert iou(none, B).shape == (0, 3)
    assert iou(none, none).shape == (0, 0)


def test_iou_is_the_formula() -> None:
    boxes = np.random.default_rng(0).integers(0, 12, (60, 4)).astype(float)
    boxes[:, 2:] += boxes[:, :2]
    assert iou(boxes, boxes).tolist() == [[by_formula.iou(a, b) for b in boxes] for a in boxes]


def test_centred_iou_by_hand() -> None:
    """2 x 3 in 4 x 3: 6 / 12; across 3 x 2: 4 / 8."""
    assert centred_iou(np.array([[2.0, 3], [0, 0]]), np.array([[4.0, 3], [3, 2]])).tolist() == [[0.5, 0.5], [0, 0]]


def test_letterbox_by_hand() -> None:
    """200 x 100 into 416 x 416: 2.08 times as large, 416 x 208, with 104 rows above."""
    box = Letterbox((200, 100), (416, 416))
    assert (box.scale, box.inner, box.pad_x, box.pad_y) == (2.08, (416, 208), 0, 104)
    assert box.to_input(np.array([[0, 0, 200, 100], [50, 25, 100, 50]])).tolist() == [
        [0, 104, 416, 312],
        [104, 156, 208, 208],
    ]
    assert box.to_image(np.array([[-20, 104, 500, 208]])).tolist() == [[0, 0, 200, 50]]


@given(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), st.tuples(st.integers(1, 700), st.integers(1, 700)))
def test_letterbox_there_and_back(image: tuple[int, int], target: tuple[int, int]) -> None:
    box = Letterbox(image, target)
    corners = np.random.default_rng(0).uniform(0, 1, (5, 2, 2))
    boxes = (np.sort(corners, 1) * image).reshape(5, 4)
    inside = box.to_input(boxes)
    assert (inside >= 0).all()
    assert (inside <= np.tile(target, 2) * (1 + 1e-6)).all()
    rounding = max(target) * np.finfo(np.float32).eps  # the rounding of a place in the input in float32
    np.testing.assert_allclose(
        box.to_image(inside), boxes, rtol=1e-6, atol=rounding * np.divide(image, box.inner).max()
    )


def test_detections_beside_the_image_are_dropped() -> None:
    """The image is 80 x 20, at 0.8 of its size, and begins at row 24 of 64."""
    boxes = [[0, 0, 60, 20], [0, 20, 64, 32], [8, 32, 16, 60], [0, 40, 9, 64]]
    found = Detections(boxes, [0.9, 0.8, 0.7, 0.6], [0, 1, 2, 3]).on_image(Letterbox((80, 20), (64, 64)))
    assert found.boxes.tolist() == [[0, 0, 80, 10], [10, 10, 20, 20]]
    assert (found.scores.tolist(), found.labels.tolist()) == ([0.8, 0.7], [1, 2])


def test_letterbox_of_no_boxes() -> None:
    assert Letterbox((20, 30), (40, 40)).to_input(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("sizes", [((0, 10), (32, 32)), ((10, 10), (32, 2.5)), ((10,), (32, 32))])
def test_letterbox_refuses(sizes: tuple) -> None:
    with pytest.raises(UsageError, match="whole pixels"):
        Letterbox(*sizes)
