"""The ground truth and the detections of one image, checked when they are made."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from foveate.detection.boxes import Array, Letterbox
from foveate.detection.boxes import areas as areas_of
from foveate.errors import DataError, UsageError


class GroundTruth:
    """The ground truth of one image, as float64 and int64 arrays.

    Args:
        boxes: (M, 4), xyxy in pixels.
        labels: (M,), from 0.
        crowd: (M,) booleans; a box around many objects (COCO's iscrowd).
        difficult: (M,) booleans; an object that may be missed (VOC's difficult).
        areas: (M,) square pixels, which decide whether objects are small, medium or large; None takes those of the
            boxes (COCO takes those of the outlines).

    Raises:
        DataError: for boxes that are not finite or whose sides are negative.
        UsageError: when the lengths of the arrays differ.
    """

    def __init__(self, boxes: Any, labels: Any, crowd: Any = None, difficult: Any = None, areas: Any = None):
        self.boxes, self.labels = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(labels, np.int64).reshape(-1)
        wrong = ~(np.isfinite(self.boxes).all(1) & (self.boxes[:, 2:] >= self.boxes[:, :2]).all(1))
        if wrong.any():
            received = repr(self.boxes[wrong][:3].tolist())
            raise DataError(
                expected="ground-truth boxes xyxy of finite numbers",
                received=received,
                do="correct them in the annotations",
            )
        none = np.zeros(len(self.boxes), bool)
        self.crowd = none if crowd is None else np.asarray(crowd, bool).reshape(-1)
        self.difficult = none if difficult is None else np.asarray(difficult, bool).reshape(-1)
        self.areas = areas_of(self.boxes) if areas is None else np.asarray(areas, np.float64).reshape(-1)
        _check_lengths(
            boxes=self.boxes, labels=self.labels, crowd=self.crowd, difficult=self.difficult, areas=self.areas
        )


class Detections:
    """The detections in one image, as float64 and int64 arrays, without boxes of NaN, infinity or a negative side.

    Args:
        boxes: (D, 4), xyxy in pixels.
        scores: (D,).
        labels: (D,), from 0.

    Raises:
        UsageError: when the lengths of the arrays differ.
    """

    def __init__(self, boxes: Any, scores: Any, labels: Any):
        boxes, scores = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float64).reshape(-1)
        labels = np.asarray(labels, np.int64).reshape(-1)
        _check_lengths(boxes=boxes, scores=scores, labels=labels)
        usable = np.isfinite(boxes).all(1) & np.isfinite(scores) & (boxes[:, 2:] >= boxes[:, :2]).all(1)
        self.boxes, self.scores, self.labels = boxes[usable], scores[usable], labels[usable]

    def on_image(self, letterbox: Letterbox) -> "Detections":
        """Convert from pixels of a network's input to pixels of the image; cut at its border, drop boxes outside."""
        boxes = letterbox.to_image(self.boxes)
        seen = areas_of(boxes) > 0
        return Detections(boxes[seen], self.scores[seen], self.labels[seen])


def check(truths: Sequence[GroundTruth], detections: Sequence[Detections], classes: int) -> None:
    """Refuse ground truth and detections that do not belong together.

    Raises:
        DataError: when there are no images.
        UsageError: when the numbers of images differ, or a label is not below the number of classes.
    """
    if not truths:
        raise DataError(expected="at least one image", received="none", do="check the split that is evaluated")
    if len(truths) != len(detections):
        received = f"{len(truths)} images, {len(detections)} lists of detections"
        raise UsageError(
            expected="the detections of each image, even if there are none",
            received=received,
            do="pass Detections for each GroundTruth",
        )
    labels = np.concatenate([part.labels for part in (*truths, *detections)])
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        received = f"labels from {labels.min()} to {labels.max()}"
        raise UsageError(
            expected=f"labels from 0 to {classes - 1}",
            received=received,
            do="number the classes from 0, and pass their count",
        )


def _check_lengths(**arrays: Array) -> None:
    if len({len(array) for array in arrays.values()}) > 1:
        received = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise UsageError(expected="arrays of one length", received=received, do="pass one value of each for every box")
