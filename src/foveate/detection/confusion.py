"""The confusion matrix of detections."""

from collections.abc import Sequence

import numpy as np

from foveate.detection import CONF
from foveate.detection.boxes import Array, areas, intersections, iou
from foveate.detection.detections import Detections, GroundTruth

OVERLAP = 0.45  # the IoU that a detection must exceed to match a ground-truth box


def confusion_matrix(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    classes: int,
    conf: float = CONF,
) -> Array:
    """Return int64 counts (K + 1, K + 1): rows are true classes, columns detected classes, the last is the background.

    Detections above `conf` are matched in order of falling score. Each is matched with the unmatched ground-truth box,
    of any class, that has the highest IoU, if that exceeds OVERLAP. The last row counts the unmatched detections,
    the last column the unmatched ground-truth boxes. Crowd and difficult boxes are not counted, nor are unmatched
    detections on them (by IoU; for a crowd, by the share of the detection inside it).
    """
    matrix = np.zeros((classes + 1, classes + 1), np.int64)
    for truth, detected in zip(truths, detections, strict=True):
        chosen = np.flatnonzero(detected.scores > conf)
        chosen = chosen[np.argsort(-detected.scores[chosen], kind="stable")]
        boxes, labels = detected.boxes[chosen], detected.labels[chosen]
        ignored = truth.crowd | truth.difficult
        counted = truth.labels[~ignored]
        overlaps = iou(boxes, truth.boxes[~ignored])
        for covers, label, excused in zip(overlaps, labels, _excused(boxes, truth, ignored), strict=True):
            best = covers.argmax() if covers.size else 0
            if covers.size and covers[best] > OVERLAP:
                matrix[counted[best], label] += 1
                overlaps[:, best] = -1
                counted[best] = -1
            elif not excused:
                matrix[classes, label] += 1
        np.add.at(matrix[:, classes], counted[counted >= 0], 1)
    return matrix


def _excused(boxes: Array, truth: GroundTruth, ignored: Array) -> Array:
    """Return for each detection whether it lies on an ignored ground-truth box."""
    if not ignored.any():
        return np.zeros(len(boxes), bool)
    common, own = intersections(boxes, truth.boxes[ignored]), areas(boxes)[:, None]
    inside = np.divide(common, own, out=np.zeros_like(common), where=own > 0)
    overlaps = np.where(truth.crowd[ignored], inside, iou(boxes, truth.boxes[ignored]))
    return np.any(overlaps > OVERLAP, axis=1)
