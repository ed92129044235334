"""Detection as a task: what a batch costs, and what is measured."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foveate.data.boxes.box_set import BoxSet
from foveate.data.boxes.collate import BoxCollate, rescaled, sides
from foveate.detection import CONF as SHOWN
from foveate.detection.assign import POSITIVE
from foveate.detection.average_precision import Detections, GroundTruth, average_precision
from foveate.detection.loss import detection_loss
from foveate.models.detectors import detections
from foveate.torch_utils.modes import Held, in_eval
from foveate.training.batches import plain_loader
from foveate.training.classify import laid_out
from foveate.training.fit_options import FitOptions

__all__ = ["ALSO", "MEASURE", "OF_CLASS", "backbone", "begin_epoch", "class_scores", "collate_for", "evaluate", "loss", "smallest"]

MEASURE, ALSO, OF_CLASS = "AP50", ("mAP",), "AP50"
CONF, IOU, MAX_DET = 0.001, 0.65, 100  # of the curves: COCO's most detections, and few candidates lost before they are ranked


def collate_for(model: Any, options: FitOptions) -> BoxCollate:
    """Return what makes images and targets for the heads of a detector."""
    return BoxCollate(tuple(model.heads), model.classes, options.seed if options.multi_scale else None)


def begin_epoch(dataset: Any, epoch: int, options: FitOptions) -> None:
    """Make mosaics until the last epochs, which show pictures as they are."""
    dataset.set_mosaic(options.mosaic and epoch < options.epochs - options.close_mosaic)


def smallest(shape: tuple[int, ...], options: FitOptions) -> tuple[int, ...]:
    """Return (3, S, S) of the least side of a training at several."""
    side = sides(shape[-1])[0] if options.multi_scale else shape[-1]
    return (shape[0], side, side)


def backbone(model: Any, classes: int) -> Held:
    """The detector's own: neck and heads learn from the beginning."""
    return Held(*model.backbone)


def loss(model: Any, batch: tuple[Tensor, list[Tensor]], options: FitOptions, step: int) -> Tensor:
    """Return the detection loss of images (N, 3, S, S) against the targets (N, A, H, W, 7) of each head."""
    images, targets = batch
    outputs = [output.float() for output in model(laid_out(rescaled(images, targets, model.heads)))]
    return detection_loss(torch, outputs, targets, model.heads, smoothing=options.smoothing)["total"]


@torch.inference_mode()
def evaluate(
    model: Any,
    dataset: BoxSet,
    batch: int = 16,
    workers: int = 0,
    *,
    conf: float = CONF,
    iou: float = IOU,
    max_det: int = MAX_DET,
    counted: float = SHOWN,
) -> dict[str, Any]:
    """Measure a detector on every picture of a data set; every module comes back in the mode it was in.

    Boxes are compared in the pixels of the pictures; the confusion matrix counts those above the confidence `counted`. Returns
    `{"loss", "score" (AP50), "mAP" (0.50 to 0.95), "AP75", "count", "coco" (all twelve numbers), "classes", "precision" (at recalls 0,
    0.01, ... for each class), "confusion"}`. The loss is that of the training with all pictures as one batch, whatever `batch` is.
    """
    device = next(model.parameters()).device
    total, positives, results = 0.0, 0.0, []
    with in_eval(model):
        for images, targets in plain_loader(dataset, batch, workers, BoxCollate(tuple(model.heads), model.classes)):
            outputs = [output.float() for output in model(laid_out(images.to(device)))]
            positives += sum(float(target[..., POSITIVE].sum()) for target in targets)
            targets = [target.to(device) for target in targets]
            total += float(detection_loss(torch, outputs, targets, model.heads, count=1)["total"])
            results += detections(model, outputs, conf=conf, iou=iou, max_det=max_det)
    return {"loss": total / max(positives, len(dataset), 1), **_measure(dataset, results, model.classes, counted)}


def class_scores(measured: Mapping[str, Any]) -> list[float | None]:
    """Return the AP50 of each class in what `evaluate` returned, None for a class without objects."""
    return [one["ap50"] for one in measured["classes"]]


def _measure(dataset: BoxSet, results: Sequence[Detections], classes: int, counted: float) -> dict[str, Any]:
    """The figures of detections in pixels of the input, plain values throughout."""
    pictures = [dataset.truth(k) for k in range(len(dataset))]
    truths = [GroundTruth(*one.objects) for one in pictures]
    moved = [one.on_image(dataset.letterbox(k)) for k, one in enumerate(results)]
    scores = average_precision(truths, moved, classes, conf=counted)
    numbers = {name: _known(value) for name, value in scores.numbers.items()}
    return {
        "score": numbers["ap50"] or 0.0,
        "mAP": numbers["ap"],
        "AP75": numbers["ap75"],
        "count": len(dataset),
        "coco": numbers,
        "classes": [{"truths": k.truths, "detections": k.detections, "ap": _known(k.ap), "ap50": _known(k.ap50)} for k in scores.classes],
        "precision": [[_known(float(value)) for value in k.precision] for k in scores.classes],
        "confusion": scores.confusion.tolist(),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
