import math
from typing import Any

import numpy as np
import pytest
import torch

from detection import by_formula
from detection.examples import CLASSES, HEADS, random_outputs
from foveate.detection.heads import YOLOV4_TINY_ANCHORS, Head, by_anchor, decode, decode_all, make_heads
from foveate.errors import UsageError


def test_yolov4_tiny() -> None:
    coarse, fine = make_heads()
    assert coarse == Head(((81, 82), (135, 169), (344, 319)), 32)
    assert fine == Head(((23, 27), (37, 58), (81, 82)), 16)


def test_a_mask_may_be_an_array() -> None:
    assert make_heads(YOLOV4_TINY_ANCHORS, np.array([[3, 4, 5], [0, 1, 2]])) == make_heads(mask=((3, 4, 5), (0, 1, 2)))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("mask", "strides"),
    [
        (((3, 4, 6), (1, 2, 3)), (32, 16)),
        (((3, 4, -1), (1, 2, 3)), (32, 16)),
        (((3, 4, 4), (1, 2, 3)), (32, 16)),
        (((3, 4, 5), ()), (32, 16)),
        (((3, 4, 5),), (32, 16)),
        (((3, 4, 5), (1, 2, 3), (0,)), (32, 16)),
    ],
)
def test_a_wrong_mask_is_refused(mask: Any, strides: Any) -> None:
    with pytest.raises(UsageError, match="anchors_mask as 2 lists of different anchors"):
        make_heads(YOLOV4_TINY_ANCHORS, mask, strides)


NAN = math.nan
WRONG = [
    *[((), 32), (((0, 4),), 32), (((math.inf, 4),), 32), (((5, NAN),), 16), (((NAN, 5),), 16)],
    *[(((4, 4),), 0), (((4, 4),), NAN), (((4, 4),), 32, 0.9), (((4, 4),), 32, NAN), (((4, 4),), 32, math.inf)],
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_head_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError):
        Head(*wrong)


def test_decode_by_hand() -> None:
    """In the cell of row 1, column 2 at stride 32.

    Anchor 0, all zero: centre (2.5, 1.5) * 32, size 10 x 14. Anchor 1: sigmoid(ln 3) = 0.75 and 0.75 * 1.05 - 0.025 =
    0.7625, so the centre is (2.7625 * 32, 1.5 * 32) = (88.4, 48), and exp(ln 2) doubles the height of 40 x 20. Scores
    1/2 * 1/2, and 0.75 * 0.75.
    """
    output = np.zeros((1, 2 * 6, 3, 4))
    output[0, [6, 9, 10, 11], 1, 2] = math.log(3), math.log(2), math.log(3), math.log(3)
    boxes, scores = decode(np, output, Head(((10, 14), (40, 20)), 32))
    assert boxes.shape == (1, 24, 4)
    assert scores.shape == (1, 24, 1)
    np.testing.assert_allclose(boxes[0, [6, 18]], [[75, 41, 85, 55], [68.4, 28, 108.4, 68]], rtol=1e-12)
    np.testing.assert_allclose(scores[0, [6, 18], 0], [0.25, 0.5625], rtol=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_decode_is_the_formula(head: Head) -> None:
    (output,) = random_outputs(np.random.default_rng(0), 2, (head,))
    boxes, scores = decode(np, output, head)
    rows, columns = output.shape[2:]
    for place, (n, a, row, column) in enumerate(np.ndindex(2, len(head.anchors), rows, columns)):
        found = boxes.reshape(-1, 4)[place]
        np.testing.assert_allclose(found, by_formula.box(output[n], head, a, row, column), rtol=1e-12)
        logits = output[n, a * (5 + CLASSES) + 4 : (a + 1) * (5 + CLASSES), row, column]
        wanted = [by_formula.sigmoid(logits[0]) * by_formula.sigmoid(logit) for logit in logits[1:]]
        np.testing.assert_allclose(scores.reshape(-1, CLASSES)[place], wanted, rtol=1e-12)


def test_channels_may_come_last_and_torch_agrees() -> None:
    outputs = random_outputs(np.random.default_rng(1), 2)
    boxes, scores = decode_all(np, outputs, HEADS)
    last = decode_all(np, [output.transpose(0, 2, 3, 1) for output in outputs], HEADS, channels_last=True)
    of_torch = decode_all(torch, [torch.from_numpy(output) for output in outputs], HEADS)
    for other in (last, of_torch):
        np.testing.assert_allclose(other[0], boxes, rtol=1e-12)
        np.testing.assert_allclose(other[1], scores, rtol=1e-12)
    assert boxes.shape == (2, 2 * 2 * 3 + 3 * 4 * 6, 4)


def test_boxes_of_extreme_outputs_are_finite() -> None:
    boxes, scores = decode(torch, torch.full((1, 18, 2, 2), 1e4), make_heads()[0])
    assert torch.isfinite(boxes).all()
    assert torch.isfinite((boxes[..., 2] - boxes[..., 0]) ** 2 + (boxes[..., 3] - boxes[..., 1]) ** 2).all()
    assert (scores == 1).all()


def test_sigmoid_in_numpy_does_not_overflow() -> None:
    _, scores = decode(np, np.full((1, 18, 2, 2), -1e4, np.float32), make_heads()[0])
    assert (scores == 0).all()


@pytest.mark.parametrize("shape", [(1, 20, 2, 2), (1, 15, 2, 2), (1, 2, 2, 21)])
def test_channels_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="anchors"):
        by_anchor(np, np.zeros(shape), make_heads()[0])
