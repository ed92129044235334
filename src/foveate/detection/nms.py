"""Non-maximum suppression: of the boxes of one class that overlap, only the one with the highest score is kept."""

import numpy as np

from foveate.checks import check_least
from foveate.detection import IOU, MAX_DET
from foveate.detection.boxes import Array, iou
from foveate.errors import UsageError

# Candidates compared at a time: few at first, as all may be kept, then twice as many each time, since most are
# suppressed by then. Memory grows only with the square of the largest block.
FIRST_BLOCK, LARGEST_BLOCK = 64, 1024
PAIRS = 16_384  # pairs of a kept box and a candidate, compared at a time: they fit into the cache of a core
MOST = 10_000  # candidates of an image that `select` considers, those with the highest scores


def nms(boxes: Array, scores: Array, labels: Array, threshold: float = IOU, max_det: int = MAX_DET) -> Array:
    """Return which boxes are kept, as int64 indices by falling score, ties by index.

    A box is kept unless a kept box of the same label and a higher score has an IoU above the threshold with it. A box
    with a NaN score is never kept. Time grows at most with M x max_det and memory with M; a direct implementation needs
    M x M of both.

    Args:
        boxes: (M, 4), xyxy in any unit.
        scores: (M,).
        labels: (M,).
        threshold: the IoU threshold, from 0 to 1.
        max_det: the highest number of boxes to keep.

    Raises:
        UsageError: when the lengths differ, the threshold is not from 0 to 1, or `max_det` is below 1.
    """
    if not len(boxes) == len(scores) == len(labels):
        received = f"{len(boxes)} boxes, {len(scores)} scores, {len(labels)} labels"
        raise UsageError(
            expected="a score and a label for each box", received=received, do="pass three arrays of one length"
        )
    _check_suppression(threshold, max_det)
    order = np.argsort(-scores, kind="stable")
    order = order[~np.isnan(scores[order])]
    kept = np.zeros(0, np.int64)
    start, size = 0, FIRST_BLOCK
    while start < len(order) and len(kept) < max_det:
        block = _uncovered(boxes, labels, kept, order[start : start + size], threshold)
        kept = np.concatenate([kept, block[_first_come(_covers(boxes, labels, block, block, threshold))]])[:max_det]
        start, size = start + size, min(2 * size, LARGEST_BLOCK)
    return kept


def select(
    boxes: Array, scores: Array, conf: float = 0.001, threshold: float = 0.65, max_det: int = 300, most: int = MOST
) -> tuple[Array, Array, Array]:
    """Return the detections of one image by falling score: boxes (D, 4) and scores (D,) float32, labels (D,) int64.

    A candidate is a box with a class whose score is above `conf`. As usual for COCO's numbers, one box can be a
    candidate for several classes. Only the `most` candidates with the highest scores are considered (ties by index), so
    that an untrained network does not take longer.

    Args:
        boxes: (M, 4), xyxy in pixels.
        scores: (M, K) in 0..1.
        conf: the confidence that a score must exceed.
        threshold: the IoU threshold of the suppression.
        max_det: the highest number of detections.
        most: the highest number of candidates.

    Raises:
        UsageError: as `check_thresholds`.
    """
    check_thresholds(conf, threshold, max_det)
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    of_box, label = np.nonzero(scores > conf)
    score = scores[of_box, label]
    best = np.argsort(-score, kind="stable")[:most]
    of_box, label, score = of_box[best], label[best], score[best]
    kept = nms(boxes[of_box], score, label, threshold, max_det)
    return boxes[of_box[kept]], score[kept], label[kept]


def check_thresholds(conf: float, threshold: float, max_det: int) -> None:
    """Raise UsageError for a confidence or an IoU that is not from 0 to 1, or a `max_det` below 1."""
    if not 0 <= conf <= 1:
        raise UsageError(
            expected="a confidence from 0 to 1", received=repr(conf), do="use 0.25, or 0.001 for evaluation"
        )
    _check_suppression(threshold, max_det)


def _check_suppression(threshold: float, max_det: int) -> None:
    if not 0 <= threshold <= 1:
        raise UsageError(
            expected="an iou threshold from 0 to 1", received=repr(threshold), do="use 0.45, or 0.65 for evaluation"
        )
    check_least("max_det", max_det, 1)


def _uncovered(boxes: Array, labels: Array, kept: Array, block: Array, threshold: float) -> Array:
    """Return the candidates of a block that no kept box suppresses; the first kept boxes suppress most of them."""
    done = 0
    while done < len(kept) and len(block):
        some = kept[done : done + max(1, PAIRS // len(block))]
        block = block[~_covers(boxes, labels, some, block, threshold).any(0)]
        done += len(some)
    return block


def _covers(boxes: Array, labels: Array, kept: Array, others: Array, threshold: float) -> Array:
    """Return for each kept box which other boxes of its label have an IoU above the threshold with it."""
    overlaps = iou(boxes[kept].astype(np.float64), boxes[others].astype(np.float64)) > threshold
    return overlaps & (labels[kept, None] == labels[others])


def _first_come(covers: Array) -> list[int]:
    """Return the indices of the boxes of a block that are kept, in order; each removes those that it overlaps."""
    stays = np.ones(len(covers), bool)
    kept = []
    for index, covered in enumerate(covers):
        if stays[index]:
            kept.append(index)
            stays &= ~covered
    return kept
