"""The heads of a detector, and how Darknet decodes their output maps into boxes and scores."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from foveate.detection.arrays import like, positions, sigmoid
from foveate.errors import UsageError

Anchors: TypeAlias = Sequence[tuple[float, float]]
Mask: TypeAlias = Sequence[Sequence[int]]

# Darknet's cfg/yolov4-tiny.cfg: (width, height) in pixels of its 416 x 416 input; both heads use anchor 3, and no head
# uses anchor 0.
YOLOV4_TINY_ANCHORS: Anchors = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
YOLOV4_TINY_MASK: Mask = ((3, 4, 5), (1, 2, 3))
STRIDE = 32  # pixels: the largest stride; the sides of an input are multiples of it
YOLOV4_TINY_STRIDES = (STRIDE, STRIDE // 2)
OWN_MASK: Mask = ((3, 4, 5), (0, 1, 2))  # for six anchors from the data, smallest first: each belongs to one head
# Darknet has no such bound. exp(8) is 2981 times the anchor, larger than any box. It keeps areas and squared diagonals
# (1e12 square pixels) finite in float32, so that one extreme output cannot make the loss of a whole batch infinite.
LARGEST_LOG_SIZE = 8.0


@dataclass(frozen=True)
class Head:
    """One output map (N, A * (5 + K), H, W): tx ty tw th, objectness and K classes of each anchor; `stride` in pixels.

    Raises:
        UsageError: without anchors, for an anchor or stride that is not positive, or a `scale_xy` below 1.
    """

    anchors: tuple[tuple[float, float], ...]
    stride: int
    scale_xy: float = 1.05

    def __post_init__(self) -> None:
        """Refuse anchors and strides that cannot be decoded into boxes."""
        if not self.anchors or not all(
            len(anchor) == 2 and all(0 < side < float("inf") for side in anchor) for anchor in self.anchors
        ):
            raise UsageError(
                expected="anchors as pairs (width, height) of pixels above 0",
                received=repr(self.anchors),
                do="pass at least one pair",
            )
        if not (1 <= self.stride < float("inf") and 1 <= self.scale_xy < float("inf")):  # NaN is neither
            received = f"stride={self.stride!r}, scale_xy={self.scale_xy!r}"
            raise UsageError(
                expected="a stride and a scale_xy of 1 or more",
                received=received,
                do="use a stride of 32 or 16, and 1.05",
            )


def make_heads(
    anchors: Anchors = YOLOV4_TINY_ANCHORS,
    mask: Mask = YOLOV4_TINY_MASK,
    strides: Sequence[int] = YOLOV4_TINY_STRIDES,
) -> tuple[Head, ...]:
    """Return a head for each stride, with the anchors at the indices in its row of the mask; raises as `check_mask`."""
    return tuple(
        Head(tuple((float(anchors[index][0]), float(anchors[index][1])) for index in row), stride)
        for row, stride in zip(check_mask(mask, len(anchors), len(strides)), strides, strict=True)
    )


def check_mask(
    mask: Any, anchors: int = len(YOLOV4_TINY_ANCHORS), heads: int = len(YOLOV4_TINY_STRIDES)
) -> tuple[tuple[int, ...], ...]:
    """Return a mask as tuples. Raises UsageError unless each head has a row of different indices below `anchors`."""
    try:
        rows = tuple(tuple(-1 if isinstance(index, bool) else operator.index(index) for index in row) for row in mask)
    except TypeError:
        rows = ()
    known = all(0 <= index < anchors for row in rows for index in row)
    if not known or len(rows) != heads or not all(row and len(set(row)) == len(row) for row in rows):
        raise UsageError(
            expected=f"anchors_mask as {heads} lists of different anchors 0..{anchors - 1}, "
            "one list per head, the coarsest first",
            received=repr(mask),
            do=f"pass {YOLOV4_TINY_MASK} as for COCO's weights, or {OWN_MASK}",
        )
    return rows


def by_anchor(xp: Any, output: Any, head: Head, channels_last: bool = False) -> Any:
    """Return an output (N, A * (5 + K), H, W), or (N, H, W, A * (5 + K)) with channels_last, as (N, A, H, W, 5 + K).

    Raises:
        UsageError: when the channels are not A groups of at least 5 + 1.
    """
    count = len(head.anchors)
    height, width, channels = output.shape[1:] if channels_last else (*output.shape[2:], output.shape[1])
    if channels % count or channels // count < 6:
        raise UsageError(
            expected=f"{count} anchors * (5 + classes) channels",
            received=f"an output of {channels} channels, channels {'last' if channels_last else 'first'}",
            do="build the network with the same anchors, or set channels_last",
        )
    if channels_last:
        return xp.moveaxis(xp.reshape(output, (-1, height, width, count, channels // count)), 3, 1)
    return xp.moveaxis(xp.reshape(output, (-1, count, channels // count, height, width)), 2, -1)


def decode_boxes(xp: Any, values: Any, head: Head) -> Any:
    """Decode the boxes (N, A, H, W, 4), xyxy in pixels of the input, from values (N, A, H, W, 4 or more).

    Darknet's yolo_layer.c with scale_x_y: centre = (sigmoid(t) * s - (s - 1) / 2 + cell) * stride, size = exp(t) *
    anchor.
    """
    rows, columns = values.shape[2:4]
    anchors = like(xp, head.anchors, values)[:, None, None]
    centre = sigmoid(xp, values[..., :2]) * head.scale_xy - (head.scale_xy - 1) / 2
    size = xp.exp(xp.clip(values[..., 2:4], -LARGEST_LOG_SIZE, LARGEST_LOG_SIZE))
    x = (centre[..., 0] + positions(xp, columns, values)) * head.stride
    y = (centre[..., 1] + positions(xp, rows, values)[:, None]) * head.stride
    half_width, half_height = size[..., 0] * anchors[..., 0] / 2, size[..., 1] * anchors[..., 1] / 2
    return xp.stack([x - half_width, y - half_height, x + half_width, y + half_height], -1)


def decode(xp: Any, output: Any, head: Head, channels_last: bool = False) -> tuple[Any, Any]:
    """Decode one output: boxes (N, A * H * W, 4), xyxy in pixels of the input, and scores (N, A * H * W, K).

    A score in 0..1 is sigmoid(objectness) * sigmoid(class). Candidates are ordered by anchor, row and column.
    """
    values = by_anchor(xp, output, head, channels_last)
    _, anchors, rows, columns, channels = values.shape
    scores = sigmoid(xp, values[..., 4:5]) * sigmoid(xp, values[..., 5:])
    count = anchors * rows * columns
    return xp.reshape(decode_boxes(xp, values, head), (-1, count, 4)), xp.reshape(scores, (-1, count, channels - 5))


def decode_all(xp: Any, outputs: Sequence[Any], heads: Sequence[Head], channels_last: bool = False) -> tuple[Any, Any]:
    """Return the boxes (N, M, 4) and scores (N, M, K) of all heads, concatenated; see `decode`."""
    decoded = [decode(xp, output, head, channels_last) for output, head in zip(outputs, heads, strict=True)]
    return xp.concatenate([boxes for boxes, _ in decoded], 1), xp.concatenate([scores for _, scores in decoded], 1)
