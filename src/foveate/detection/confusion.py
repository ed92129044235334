"""Which class was taken for which: the confusion matrix of detections."""

from collections.abc import Sequence

import numpy as np

from foveate.detection import CONF
from foveate.detection.boxes import Array, areas, intersections, iou
from foveate.detection.detections import Detections, GroundTruth

OVERLAP = 0.45  # the IoU with a truth from which it counts as found there


def confusion_matrix(
    truths: Sequence[GroundTruth], found: Sequence[Detections], classes: int, conf: float = CONF, threshold: float = OVERLAP
) -> Array:
    """Return int64 counts (K + 1, K + 1): a row for each true class, a column for each found one, the last of both the background.

    Detections above `conf` take, by falling score, the free truth of any class that they cover best, with an IoU above the threshold.
    The rest are in the last row, truths that nobody took in the last column. What lies on a crowd or difficult truth instead (by IoU,
    or by its own share inside a crowd) is not counted, nor are those truths.
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for truth, detections in zip(truths, found, strict=True):
        chosen = np.flatnonzero(detections.scores > conf)
        chosen = chosen[np.argsort(-detections.scores[chosen], kind="stable")]
        boxes, labels = detections.boxes[chosen], detections.labels[chosen]
        ignored = truth.crowd | truth.difficult
        counted = truth.labels[~ignored]
        overlaps = iou(boxes, truth.boxes[~ignored])
        for covers, label, excused in zip(overlaps, labels, _excused(boxes, truth, ignored, threshold), strict=True):
            best = covers.argmax() if covers.size else 0
            if covers.size and covers[best] > threshold:
                matrix[counted[best], label] += 1
                overlaps[:, best] = -1
                counted[best] = -1
            elif not excused:
                matrix[classes, label] += 1
        np.add.at(matrix[:, classes], counted[counted >= 0], 1)
    return matrix


def _excused(boxes: Array, truth: GroundTruth, ignored: Array, threshold: float) -> Array:
    """Return for each detection whether it lies on an ignored truth."""
    if not ignored.any():
        return np.zeros(len(boxes), bool)
    common, own = intersections(boxes, truth.boxes[ignored]), areas(boxes)[:, None]
    inside = np.divide(common, own, out=np.zeros_like(common), where=own > 0)
    overlaps = np.where(truth.crowd[ignored], inside, iou(boxes, truth.boxes[ignored]))
    return np.any(overlaps > threshold, axis=1)
