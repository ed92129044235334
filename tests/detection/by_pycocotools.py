"""COCO's twelve numbers directly from pycocotools, with its own handling of ignored ground truth."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import coco, cocoeval

from foveate.detection.detections import Detections, GroundTruth

COCO: Any = coco.COCO
COCOeval: Any = cocoeval.COCOeval


class Evaluation(COCOeval):
    """pycocotools' evaluation, with the `ignore` flag set again after its preparation overwrites it with `iscrowd`."""

    def _prepare(self) -> None:
        super()._prepare()
        for truths in self._gts.values():
            for truth in truths:
                truth["ignore"] = truth["iscrowd"] or truth["difficult"]


def numbers(truths: Sequence[GroundTruth], found: Sequence[Detections], classes: int) -> np.ndarray:
    """Return the `stats` (12,), -1 where nothing can be measured."""
    annotations: list[dict[str, Any]] = []
    for image, truth in enumerate(truths):
        for i, (x0, y0, x1, y1) in enumerate(truth.boxes.tolist()):
            flags = {"iscrowd": int(truth.crowd[i]), "difficult": int(truth.difficult[i])}
            size = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": int(truth.labels[i]), **size, **flags}
            )
    detections = [
        {"image_id": image, "category_id": int(label), "bbox": [x0, y0, x1 - x0, y1 - y0], "score": float(score)}
        for image, each in enumerate(found)
        for (x0, y0, x1, y1), score, label in zip(each.boxes.tolist(), each.scores, each.labels, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO()
        images, categories = (
            [{"id": image} for image in range(len(truths))],
            [{"id": label} for label in range(classes)],
        )
        truth_set.dataset = {"images": images, "categories": categories, "annotations": annotations}
        truth_set.createIndex()
        if detections:
            found_set = truth_set.loadRes(detections)
        else:
            found_set = COCO()
            found_set.dataset = {"images": images, "categories": categories, "annotations": []}
            found_set.createIndex()
        evaluation = Evaluation(truth_set, found_set, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.asarray(evaluation.stats)
