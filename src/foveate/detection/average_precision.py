"""Average precision of detections: COCO's twelve numbers, the scores of each class, and the confusion matrix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foveate.checks import check_least
from foveate.detection import CONF, coco_engine
from foveate.detection.boxes import Array
from foveate.detection.coco_engine import CocoEngine, Evaluated
from foveate.detection.confusion import confusion_matrix
from foveate.detection.detections import Detections, GroundTruth, check

__all__ = ["ClassScores", "DetectionScores", "Detections", "GroundTruth", "average_precision"]

ALL, SMALL, MEDIUM, LARGE = range(4)  # area ranges: any, below 32^2, between, above 96^2 square pixels
ONE, TEN, HUNDRED = range(3)  # limits on the detections of a class in an image
AT_50, AT_75 = 0, 5  # index of the IoU, from 0.50 to 0.95 in steps of 0.05
ANY = slice(None)
# COCO's twelve numbers in its order: whether precision, and which IoU, area and detections.
NUMBERS = {
    "ap": (True, ANY, ALL, HUNDRED),
    "ap50": (True, AT_50, ALL, HUNDRED),
    "ap75": (True, AT_75, ALL, HUNDRED),
    "ap_small": (True, ANY, SMALL, HUNDRED),
    "ap_medium": (True, ANY, MEDIUM, HUNDRED),
    "ap_large": (True, ANY, LARGE, HUNDRED),
    "ar_1": (False, ANY, ALL, ONE),
    "ar_10": (False, ANY, ALL, TEN),
    "ar_100": (False, ANY, ALL, HUNDRED),
    "ar_small": (False, ANY, SMALL, HUNDRED),
    "ar_medium": (False, ANY, MEDIUM, HUNDRED),
    "ar_large": (False, ANY, LARGE, HUNDRED),
}


@dataclass(frozen=True)
class ClassScores:
    """One class: the numbers of counted ground-truth boxes and of detections, AP over IoU 0.50 to 0.95 and at 0.50.

    Each AP is from 0 to 1, or NaN without ground truth. `precision` (101,) at IoU 0.50 is the highest at a recall of at
    least 0, 0.01, ... 1, and `scores` are the confidences there. Both are 0 if that recall is not reached, and NaN
    without ground truth.
    """

    truths: int
    detections: int
    ap: float
    ap50: float
    precision: Array
    scores: Array


@dataclass(frozen=True)
class DetectionScores:
    """COCO's twelve `numbers` by name (0..1, NaN without ground truth), and the scores of the classes.

    `confusion` is the matrix (K + 1, K + 1), `engine` the library that was used.
    """

    numbers: dict[str, float]
    classes: tuple[ClassScores, ...]
    confusion: Array
    engine: CocoEngine


def average_precision(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    classes: int,
    *,
    conf: float = CONF,
    engine: CocoEngine | None = None,
) -> DetectionScores:
    """Compare the detections on each image with its ground truth as COCO does, by faster-coco-eval or pycocotools.

    At most 100 detections of a class count in an image. Detections inside a crowd do not count. A difficult box does
    not count, nor does the one detection that matches it; a second detection there is false, as for COCO's ignored
    objects (VOC's own program ignores it too).

    Args:
        truths: the ground truth of each image.
        detections: the detections of each image, in the same order.
        classes: the number of classes.
        conf: the confidence that a detection must exceed to be in the confusion matrix.
        engine: the library; both give the same numbers. None takes the faster one that is installed.

    Raises:
        DataError: when there are no images.
        UsageError: when images or labels do not belong together, or no engine is installed.
    """
    check_least("classes", classes, 1)
    check(truths, detections, classes)
    evaluated = coco_engine.run(truths, detections, classes, engine)
    return DetectionScores(
        {name: _number(evaluated, *which) for name, which in NUMBERS.items()},
        _by_class(evaluated, truths, detections, classes),
        confusion_matrix(truths, detections, classes, conf),
        evaluated.engine,
    )


def _number(evaluated: Evaluated, precision: bool, ious: slice | int, area: int, detections: int) -> float:
    return _mean(
        evaluated.precision[ious, :, :, area, detections] if precision else evaluated.recall[ious, :, area, detections]
    )


def _mean(values: Array) -> float:
    """Return the mean of the values that were measured, as the libraries do."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else float("nan")


def _by_class(
    evaluated: Evaluated, truths: Sequence[GroundTruth], detections: Sequence[Detections], classes: int
) -> tuple[ClassScores, ...]:
    true = np.bincount(
        np.concatenate([truth.labels[~(truth.crowd | truth.difficult)] for truth in truths]), minlength=classes
    )
    detected = np.bincount(np.concatenate([each.labels for each in detections]), minlength=classes)
    precision, scores = evaluated.precision[..., ALL, HUNDRED], evaluated.scores[..., ALL, HUNDRED]
    return tuple(
        ClassScores(
            int(true[k]),
            int(detected[k]),
            _mean(precision[:, :, k]),
            _mean(precision[AT_50, :, k]),
            np.where(precision[AT_50, :, k] > -1, precision[AT_50, :, k], np.nan),
            np.where(precision[AT_50, :, k] > -1, scores[AT_50, :, k], np.nan),
        )
        for k in range(classes)
    )
