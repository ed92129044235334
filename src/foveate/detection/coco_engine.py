"""COCO's evaluation by faster-coco-eval, or by the slower pycocotools: the same precisions and recalls."""

import contextlib
import importlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from foveate.detection.boxes import Array
from foveate.detection.detections import Detections, GroundTruth
from foveate.errors import missing_extra

CocoEngine: TypeAlias = Literal["faster-coco-eval", "pycocotools"]

# module and class of the data set, module and class of the evaluation
CLASSES: dict[CocoEngine, tuple[tuple[str, str], tuple[str, str]]] = {
    "faster-coco-eval": (("faster_coco_eval", "COCO"), ("faster_coco_eval", "COCOeval_faster")),
    "pycocotools": (("pycocotools.coco", "COCO"), ("pycocotools.cocoeval", "COCOeval")),
}
# An area outside every range that COCO evaluates, also outside "all": it makes a ground-truth box ignored. The `ignore`
# flag does not, since both libraries overwrite it with `iscrowd`. A crowd can match any number of detections, an
# ignored box only one.
IGNORED_AREA = -1.0


@dataclass(frozen=True)
class Evaluated:
    """The arrays that the library accumulated, with -1 where there is no ground truth.

    precision and scores are (10, 101, K, 4, 3) over IoU, recall, class, area range and 1, 10 or 100 detections; recall
    (10, K, 4, 3).
    """

    engine: CocoEngine
    precision: Array
    recall: Array
    scores: Array


def run(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], classes: int, engine: CocoEngine | None = None
) -> Evaluated:
    """Evaluate with the given engine, or with the first that is installed. Raises UsageError if none is."""
    engine, new_coco, new_eval = _library(engine)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = new_eval(
            _dataset(new_coco(), len(truths), classes, _true_annotations(truths)),
            _dataset(new_coco(), len(truths), classes, _detected_annotations(detections)),
            "bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
    return Evaluated(engine, *(np.asarray(evaluation.eval[name]) for name in ("precision", "recall", "scores")))


def _library(engine: CocoEngine | None) -> tuple[CocoEngine, Any, Any]:
    candidates: Sequence[CocoEngine] = [engine] if engine else list(CLASSES)
    for name in candidates:
        try:
            coco, evaluation = (
                getattr(importlib.import_module(module), attribute) for module, attribute in CLASSES[name]
            )
        except ImportError:
            continue
        return name, coco, evaluation
    raise missing_extra(engine or "faster-coco-eval or pycocotools", "detect")


def _dataset(coco: Any, images: int, classes: int, annotations: Iterator[dict[str, Any]]) -> Any:
    """Fill an empty COCO object; its own `loadRes` fails without detections."""
    coco.dataset = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": label} for label in range(classes)],
        # from 1, since 0 means no match
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)],
    }
    coco.createIndex()
    return coco


def _true_annotations(truths: Sequence[GroundTruth]) -> Iterator[dict[str, Any]]:
    for image, truth in enumerate(truths):
        areas = np.where(truth.difficult, IGNORED_AREA, truth.areas)
        columns = (_xywh(truth.boxes).tolist(), truth.labels.tolist(), areas.tolist(), truth.crowd.astype(int).tolist())
        for box, label, area, crowd in zip(*columns, strict=True):
            yield {"image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}


def _detected_annotations(detections: Sequence[Detections]) -> Iterator[dict[str, Any]]:
    for image, detected in enumerate(detections):
        boxes = _xywh(detected.boxes)
        columns = (boxes.tolist(), detected.labels.tolist(), boxes[:, 2:].prod(1).tolist(), detected.scores.tolist())
        for box, label, area, score in zip(*columns, strict=True):
            yield {"image_id": image, "category_id": label, "bbox": box, "area": area, "score": score, "iscrowd": 0}


def _xywh(boxes: Array) -> Array:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
