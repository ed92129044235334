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

Engine: TypeAlias = Literal["faster-coco-eval", "pycocotools"]

CLASSES: dict[Engine, tuple[tuple[str, str], tuple[str, str]]] = {  # the data set's and the evaluation's, by module
    "faster-coco-eval": (("faster_coco_eval", "COCO"), ("faster_coco_eval", "COCOeval_faster")),
    "pycocotools": (("pycocotools.coco", "COCO"), ("pycocotools.cocoeval", "COCOeval")),
}
# Outside every range of areas that COCO evaluates, "all" included, which is what makes a truth ignored. Its `ignore` flag does not: both
# libraries overwrite that with `iscrowd`. A crowd is matched by any number of detections that lie in it, an ignored truth by one.
IGNORED_AREA = -1.0


@dataclass(frozen=True)
class Evaluated:
    """What the library accumulated, -1 where there is no truth.

    precision and scores are (10, 101, K, 4, 3) over IoU, recall, class, area range and 1, 10 or 100 detections; recall (10, K, 4, 3).
    """

    engine: Engine
    precision: Array
    recall: Array
    scores: Array


def run(truths: Sequence[GroundTruth], found: Sequence[Detections], classes: int, engine: Engine | None = None) -> Evaluated:
    """Evaluate with the engine named, or with the first that is installed. Raises UsageError when none is."""
    engine, new_coco, new_eval = _library(engine)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = new_eval(
            _dataset(new_coco(), len(truths), classes, _true_annotations(truths)),
            _dataset(new_coco(), len(truths), classes, _found_annotations(found)),
            "bbox",
        )
        evaluation.evaluate()
        evaluation.accumulate()
    return Evaluated(engine, *(np.asarray(evaluation.eval[name]) for name in ("precision", "recall", "scores")))


def _library(engine: Engine | None) -> tuple[Engine, Any, Any]:
    candidates: Sequence[Engine] = [engine] if engine else list(CLASSES)
    for name in candidates:
        try:
            coco, evaluation = (getattr(importlib.import_module(module), attribute) for module, attribute in CLASSES[name])
        except ImportError:
            continue
        return name, coco, evaluation
    raise missing_extra(engine or "faster-coco-eval or pycocotools", "detect")


def _dataset(coco: Any, images: int, classes: int, annotations: Iterator[dict[str, Any]]) -> Any:
    """Fill an empty COCO; its own `loadRes` fails without detections."""
    coco.dataset = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)],  # 0 means no match
    }
    coco.createIndex()
    return coco


def _true_annotations(truths: Sequence[GroundTruth]) -> Iterator[dict[str, Any]]:
    for image, truth in enumerate(truths):
        areas = np.where(truth.difficult, IGNORED_AREA, truth.areas)
        columns = (_xywh(truth.boxes).tolist(), truth.labels.tolist(), areas.tolist(), truth.crowd.astype(int).tolist())
        for box, label, area, crowd in zip(*columns, strict=True):
            yield {"image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}


def _found_annotations(found: Sequence[Detections]) -> Iterator[dict[str, Any]]:
    for image, detections in enumerate(found):
        boxes = _xywh(detections.boxes)
        columns = (boxes.tolist(), detections.labels.tolist(), boxes[:, 2:].prod(1).tolist(), detections.scores.tolist())
        for box, label, area, score in zip(*columns, strict=True):
            yield {"image_id": image, "category_id": label, "bbox": box, "area": area, "score": score, "iscrowd": 0}


def _xywh(boxes: Array) -> Array:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
