"""Assign each ground-truth box to cells and anchors, as dense targets for the loss."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from foveate.detection.boxes import Array, Size, centred_iou
from foveate.detection.heads import Head
from foveate.errors import UsageError

FIT = 0.213  # iou_thresh of Darknet's cfg/yolov4.cfg
TARGET = 7  # numbers of a target: the box xyxy, then:
POSITIVE, WEIGHT, LABEL = 4, 5, 6


def assign(
    boxes: Array, labels: Array, heads: Sequence[Head], size: Size, classes: int, ignored: Array | None = None
) -> list[Array]:
    """Return for each head a float32 target (A, H, W, 7).

    The 7 numbers are the box xyxy in pixels, positive (0 or 1), the weight of the objectness (0 or 1) and the label.

    A box is assigned to the cell of its centre, for every anchor of every head whose size has an IoU above 0.213 with
    the box, and for the anchor with the highest IoU in any case. Where two boxes are assigned to one anchor of one
    cell, the one with the higher IoU stays; of equal ones, the first. A cell has weight 0 if its centre lies in an
    ignored box (crowd, difficult) or the centre of such a box lies in it, unless a box is assigned there. Boxes without
    area are skipped.

    Args:
        boxes: (M, 4), xyxy in pixels of the input.
        labels: (M,), whole numbers from 0 below `classes`.
        heads: of the detector.
        size: the input's (width, height) in pixels.
        classes: the number of classes.
        ignored: (I, 4) boxes of objects that count neither as ground truth nor as background.

    Raises:
        UsageError: for labels that do not fit, boxes that are not finite, or a size that a stride does not divide.
    """
    boxes, labels = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels).reshape(-1)
    _check(boxes, labels, classes)
    heads, size = tuple(heads), (int(size[0]), int(size[1]))
    anchors, stride, grid, first = _layout(heads, size)
    targets = np.zeros((first[-1], TARGET), np.float32)
    targets[:, WEIGHT] = 1
    if ignored is not None and len(ignored):
        targets[_inside(np.asarray(ignored).reshape(-1, 4), heads, size), WEIGHT] = 0
    sizes = boxes[:, 2:] - boxes[:, :2]
    fit = centred_iou(np.maximum(sizes, 0), anchors)
    best = fit.max(1, initial=0, keepdims=True)
    # Darknet uses one anchor in two heads; if it is the best, it is the best in both.
    of_box, of_anchor = np.nonzero(((fit > FIT) | (fit == best)) & (best > 0))
    # Of several values written to one index, NumPy keeps the last: the best fit, and of equal ones the first box.
    order = np.lexsort((-of_box, fit[of_box, of_anchor]))
    of_box, of_anchor = of_box[order], of_anchor[order]
    centre = (boxes[:, :2] + boxes[:, 2:])[of_box] / 2
    cell = np.clip((centre // stride[of_anchor, None]).astype(np.int64), 0, grid[of_anchor] - 1)
    place = first[of_anchor] + cell[:, 1] * grid[of_anchor, 0] + cell[:, 0]
    targets[place, :4], targets[place, POSITIVE], targets[place, WEIGHT], targets[place, LABEL] = (
        boxes[of_box],
        1,
        1,
        labels[of_box],
    )
    return _by_head(targets, heads, grid, first)


def assign_batch(truths: Iterable[Sequence[Array]], heads: Sequence[Head], size: Size, classes: int) -> list[Array]:
    """Return for each head the targets (N, A, H, W, 7) of N images; `truths` are (boxes, labels, ignored flags)."""
    each = [assign(boxes[~skip], labels[~skip], heads, size, classes, boxes[skip]) for boxes, labels, skip in truths]
    return [np.stack(parts) for parts in zip(*each, strict=True)]


@lru_cache(maxsize=32)
def _layout(heads: tuple[Head, ...], size: Size) -> tuple[Array, Array, Array, Array]:
    """Return for each anchor the size (T, 2), stride (T,), columns and rows (T, 2), and first cell (T + 1,)."""
    for head in heads:
        if size[0] % head.stride or size[1] % head.stride:
            expected = f"an input (width, height) that the stride {head.stride} divides"
            raise UsageError(
                expected=expected, received=repr(size), do=f"round both sides to a multiple of {head.stride}"
            )
    stride = np.array([head.stride for head in heads for _ in head.anchors])
    grid = np.array(size) // stride[:, None]
    first = np.concatenate([[0], np.cumsum(grid.prod(1))])
    return np.array([anchor for head in heads for anchor in head.anchors], np.float64), stride, grid, first


@lru_cache(maxsize=32)
def _cells(heads: tuple[Head, ...], size: Size) -> tuple[Array, Array, Array]:
    """Return x and y of the centre of every cell of every anchor, and half the side of the cell, in pixels."""
    _, stride, grid, _ = _layout(heads, size)
    axes = [
        ((np.arange(columns) + 0.5) * step, (np.arange(rows) + 0.5) * step)
        for (columns, rows), step in zip(grid, stride, strict=True)
    ]
    x, y = (
        np.concatenate([np.tile(x, len(y)) for x, y in axes]),
        np.concatenate([np.repeat(y, len(x)) for x, y in axes]),
    )
    return x, y, np.repeat(stride / 2, grid.prod(1))


def _inside(boxes: Array, heads: tuple[Head, ...], size: Size) -> Array:
    """Return for each cell whether its centre lies in a box, or the centre of a (small) box lies in it."""
    x, y, half = _cells(heads, size)
    left, top, right, bottom = boxes.T[..., None]
    inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    right_of, below = (left + right) / 2 - x, (top + bottom) / 2 - y
    holds = (right_of >= -half) & (right_of < half) & (below >= -half) & (below < half)
    return (inside | holds).any(0)


def _by_head(targets: Array, heads: Sequence[Head], grid: Array, first: Array) -> list[Array]:
    found, start = [], 0
    for head in heads:
        stop = start + len(head.anchors)
        columns, rows = grid[start]
        found.append(targets[first[start] : first[stop]].reshape(len(head.anchors), rows, columns, TARGET))
        start = stop
    return found


def _check(boxes: Array, labels: Array, classes: int) -> None:
    if len(boxes) != len(labels):
        raise UsageError(
            expected="one label for each box",
            received=f"{len(boxes)} boxes, {len(labels)} labels",
            do="pass as many labels as boxes",
        )
    if not np.isfinite(boxes).all():
        raise UsageError(
            expected="boxes of finite numbers",
            received="NaN or infinity",
            do="leave such boxes out when reading the data",
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        received = f"labels from {labels.min()} to {labels.max()}"
        raise UsageError(
            expected=f"labels from 0 to {classes - 1}",
            received=received,
            do="number the classes from 0, and pass their count",
        )
