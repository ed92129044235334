"""Detection: an image has objects, each with a box and a class."""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Subset

from foveate import files
from foveate.checks import check_least
from foveate.data import BoxData, DigitScenesOptions, Split, open_box_data
from foveate.data.boxes.box_set import BoxSet
from foveate.data.boxes.collate import BoxCollate, rescaled, sides
from foveate.data.images.decode import SUFFIXES as IMAGES
from foveate.data.images.decode import Greys, shown
from foveate.data.images.video import VIDEOS
from foveate.data.images.working_copies import CacheOptions
from foveate.detection import CONF as SHOWN
from foveate.detection import IOU as SHOWN_IOU
from foveate.detection import MAX_DET as SHOWN_MOST
from foveate.detection.assign import POSITIVE
from foveate.detection.average_precision import Detections, GroundTruth, average_precision
from foveate.detection.boxes import Letterbox
from foveate.detection.confusion import OVERLAP, confusion_matrix
from foveate.detection.heads import YOLOV4_TINY_ANCHORS
from foveate.detection.loss import detection_loss
from foveate.detection.nms import check_thresholds
from foveate.errors import counted as number_of
from foveate.gates.maps import Maps, capture
from foveate.gates.pointing_game import play_pointing_game
from foveate.models.detectors import (
    DETECTORS,
    build_detector,
    detect,
    detections,
    load_detector,
    trained_anchors,
    warn_of_heads,
)
from foveate.normalisation import Normalisation
from foveate.torch_utils.modes import Freezable, in_eval
from foveate.training import peers
from foveate.training.batches import plain_loader
from foveate.training.box_predictions import BoxOptions, predict_boxes
from foveate.training.fit_options import FitOptions
from foveate.training.tasks import Prediction, Table, percent
from foveate.training.tasks.classify import channels_last, mapped_images

MEASURE, ALSO, OF_CLASS, OBJECT = "AP50", ("mAP",), "AP50", "objects"
NETWORK = "object detector"
PIPELINE = "object-detection"
MODELS = DETECTORS
_ATTENTION = ("se", "cbam", "cbam-paper", "coordinate")
DEFAULTS = {
    "attention": _ATTENTION,
    "model": "yolov4-tiny",
    "where": ("sites.*",),
    "epochs": 60,
    "batch": 24,
    "lr": 0.002,
    "ema": 0.99,
}
DEFAULTS |= {"on_defect": "drop"}
GENERATED = {
    "epochs": 6,
    "canvas": 128,
    "fragments": 12,
    "channels": 3,
    "train_count": 4000,
    "val_count": 200,
    "test_count": 500,
}
PLANTED = None
ONLY = {"multi_scale": (False,), "mosaic": (True,)}
FIXED_VIEW, NORMALISES = False, False  # all detectors take pixels from 0 to 1
VAL_OPTIONS = ("conf", "iou", "max_det")
PREDICT_OPTIONS = {"conf": SHOWN, "iou": SHOWN_IOU, "max_det": SHOWN_MOST, "every": 1, "pictures": True, "batch": 8}
SUFFIXES = IMAGES | VIDEOS

# for the precision-recall curves: COCO's number of detections, and thresholds that remove few candidates
CONF, IOU, MAX_DET = 0.001, 0.65, 100
_POINTED = 512  # images in the pointing game
_FIGURES = {"ap50": "AP50", "ap75": "AP75", "ap": "mAP", "ar_100": "Recall"}


def open(
    path: Path | None,
    *,
    imgsz: int | None,
    seed: int,
    augment: bool,
    on_defect: str,
    generated: Mapping[str, Any],
    split: Split | None,
    measured: str | None,
    normalisation: Normalisation | None,
    greys: Greys | None,
    cache: CacheOptions,
) -> BoxData:
    """Open a folder of images with boxes, or embedded digit scenes."""
    scenes = DigitScenesOptions(
        **{name: value for name, value in generated.items() if name not in ("noise", "channels")}, seed=seed
    )
    common = {"imgsz": imgsz, "seed": seed, "split": split, "measured": measured, "augment": augment}
    return open_box_data(path, **common, digits=scenes, on_defect=on_defect, greys=greys, cache=cache)


def describe(data: BoxData, weights: Path | None) -> dict[str, Any]:
    """Return the description of the data, with the anchors of the weights if these are known."""
    described = data.describe()
    return {
        **described,
        "anchors": (trained_anchors(weights, len(data.classes)) if weights else None) or described["anchors"],
    }


def build(name: str, described: Mapping[str, Any]) -> nn.Module:
    """Build a detector with the anchors of `describe`."""
    return build_detector(name, len(described["classes"]), described["anchors"])


def sample(name: str, classes: int | None, channels: int, imgsz: int | None) -> tuple[nn.Module, int | None]:
    """Build a detector; None gives COCO's 80 classes and 416 pixels."""
    model = build_detector(name, 80 if classes is None else classes, anchors=YOLOV4_TINY_ANCHORS)
    return model.eval(), 416 if imgsz is None else imgsz


def load(model: Any, path: Path, classes: Sequence[str]) -> None:
    """Load weights, with the heads if these have the same number of classes; warn if anchors or names may differ."""
    if not load_detector(model, path):
        warn_of_heads(path, classes, trained_anchors(path, len(classes)))


def collate_for(model: Any, options: FitOptions) -> BoxCollate:
    """Return the function that makes batches of images and targets for the heads of a detector."""
    return BoxCollate(tuple(model.heads), model.classes, options.seed if options.multi_scale else None)


def begin_epoch(dataset: Any, epoch: int, options: FitOptions) -> None:
    """Switch mosaics on, but off for the last epochs."""
    dataset.set_mosaic(options.mosaic and epoch < options.epochs - options.close_mosaic)


def smallest(shape: tuple[int, ...], options: FitOptions) -> tuple[int, ...]:
    """Return (3, S, S) with the smallest side of a multi-scale training."""
    side = sides(shape[-1])[0] if options.multi_scale else shape[-1]
    return (shape[0], side, side)


def backbone(model: Any, classes: int) -> Freezable:
    """Return the detector's backbone; neck and heads learn from the first epoch."""
    return Freezable(*model.backbone)


def loss(model: Any, batch: tuple[Tensor, list[Tensor]], options: FitOptions) -> Tensor:
    """Return the detection loss of images (N, 3, S, S) against the targets (N, A, H, W, 7) of each head."""
    images, targets = batch
    outputs = [output.float() for output in model(channels_last(rescaled(images, targets, model.heads)))]
    count = None
    if peers.joined_now():  # the mean over the processes is then the loss of all their images as one batch
        positives = torch.stack([target[..., POSITIVE].sum() for target in targets]).sum()
        own = torch.stack([positives, positives.new_tensor(len(images))])
        count = float(peers.mean(own).max())
    return detection_loss(torch, outputs, targets, model.heads, smoothing=options.smoothing, count=count)["total"]


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
    """Measure a detector on every image of a data set; the modes of its modules are restored.

    Boxes are compared in pixels of the images; the confusion matrix counts those above the confidence `counted`.
    Returns `{"loss", "score" (AP50), "mAP" (0.50 to 0.95), "AP75", "count", "coco" (all twelve numbers), "classes",
    "precision" (at recalls 0, 0.01, ... for each class), "confusion"}`. The loss is that of the training, for all
    images as one batch; it does not depend on `batch`.
    """
    device = next(model.parameters()).device
    total, positives, results = 0.0, 0.0, []
    with in_eval(model):
        for images, targets in plain_loader(dataset, batch, workers, BoxCollate(tuple(model.heads), model.classes)):
            outputs = [output.float() for output in model(channels_last(images.to(device)))]
            positives += sum(float(target[..., POSITIVE].sum()) for target in targets)
            targets = [target.to(device) for target in targets]
            total += float(detection_loss(torch, outputs, targets, model.heads, count=1)["total"])
            results += detections(model, outputs, conf=conf, iou=iou, max_det=max_det)
    return {"loss": total / max(positives, len(dataset), 1), **_measure(dataset, results, model.classes, counted)}


def class_scores(measured: Mapping[str, Any]) -> list[float | None]:
    """Return the AP50 of each class from the result of `evaluate`, None for a class without objects."""
    return [one["ap50"] for one in measured["classes"]]


def check(options: Mapping[str, Any]) -> None:
    """Refuse thresholds, counts and batches that are out of range."""
    check_thresholds(
        *(options.get(name, usual) for name, usual in (("conf", CONF), ("iou", IOU), ("max_det", MAX_DET)))
    )
    for name in {"batch", "every"} & options.keys():
        check_least(name, options[name], 1)


def figures(measured: Mapping[str, Any]) -> str:
    """Return a phrase with mAP and the number of images."""
    return f"(mAP {100 * measured['mAP']:.2f} %, {measured['count']} images)"


def measure(
    model: Any,
    dataset: BoxSet,
    numbers: Sequence[int],
    classes: Sequence[str],
    batch: int,
    workers: int,
    *,
    conf: float | None = None,
    iou: float = IOU,
    max_det: int = MAX_DET,
) -> dict[str, Any]:
    """Return the result of `evaluate` with the thresholds and the names of the classes.

    The confusion matrix counts detections above `conf`; without it, those that `predict` shows.
    """
    least, counted = (CONF, SHOWN) if conf is None else (conf, conf)
    thresholds = {"conf": least, "iou": iou, "max_det": max_det, "counted": counted}
    result = evaluate(model, _relabelled(dataset, numbers), batch, workers, **thresholds)
    rows = [{"name": name, **one} for name, one in zip(classes, result["classes"], strict=True)]
    return {**result, "thresholds": thresholds, "classes": rows}


def tables(measured: Mapping[str, Any], split: str, name: str) -> tuple[str, list[Table]]:
    """Return COCO's main numbers, a table of the classes, and the confusion matrix."""
    numbers = ", ".join(f"{title} {percent(measured['coco'][key])} %" for key, title in _FIGURES.items())
    rows = [[one["name"], str(one["truths"]), percent(one["ap50"]), percent(one["ap"])] for one in measured["classes"]]
    names = [one["name"] for one in measured["classes"]]
    matrix = [[one, *map(str, row)] for one, row in zip([*names, "(background)"], measured["confusion"], strict=True)]
    counted = f"above confidence {measured['thresholds']['counted']:g} and with an IoU above {OVERLAP:g}"
    return f"{split} of {name}, {number_of(measured['count'], 'image')}: {numbers}", [
        Table(("Class", "Boxes", "AP50 %", "mAP %"), rows),
        Table(("", *names, "(missed)"), matrix, f"Ground truth (rows) and detections (columns), {counted}:"),
    ]


def write(measured: Mapping[str, Any], folder: Path) -> None:
    """Write the precision-recall curves and the confusion matrix as CSV."""
    names = [shown(one["name"]) for one in measured["classes"]]
    curves = ((k / 100, *column) for k, column in enumerate(zip(*measured["precision"], strict=True)))
    files.write_table(folder / "precision_recall.csv", ["recall", *names], curves)
    confusion = ((name, *row) for name, row in zip([*names, "(background)"], measured["confusion"], strict=True))
    files.write_table(folder / "confusion.csv", ["true", *names, "(missed)"], confusion)


def pointing_game(model: Any, data: BoxData) -> dict[str, Any] | None:
    """Play the pointing game on the first test images, without the borders of their letterboxes."""
    indices = range(min(_POINTED, len(data.test)))
    letterboxes = [data.test.letterbox(index) for index in indices]
    boxes = [
        letterbox.to_input(data.test.truth(index).boxes) for index, letterbox in zip(indices, letterboxes, strict=True)
    ]
    within = [box.inside for box in letterboxes]
    return play_pointing_game(model, Subset(data.test, indices), boxes, within=within, batch=16) or None  # pyright: ignore[reportArgumentType]


def maps(model: Any, data: BoxData, cam: bool | Mapping[str, int] = False) -> Maps:
    """Return the attention maps of a few letterboxed test images, with their boxes and the counts of detections."""
    chosen = mapped_images(len(data.test))
    images = torch.stack([data.test[index][0] for index in chosen])
    boxes, within, counts = [], [], []
    for index, detected in zip(chosen, detect(model, images.to(next(model.parameters()).device)), strict=True):
        truth, letterbox = data.test.truth(index), data.test.letterbox(index)
        boxes.append(letterbox.to_input(truth.boxes))
        within.append(letterbox.inside)
        matrix = confusion_matrix([GroundTruth(*truth.objects)], [detected.on_image(letterbox)], len(data.classes))
        hits = int(matrix.trace())
        counts.append((int(matrix[:-1].sum()), hits, int(matrix[:, :-1].sum()) - hits))
    objects, right, false = zip(*counts, strict=True)
    pixels = (images.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
    numbers = {"objects": objects, "found": right, "false": false}
    return capture(model, pixels, images, numbers, boxes, within=within, cam=cam)


def prepare(described: Mapping[str, Any], pixels: NDArray[np.uint8]) -> Tensor:
    """Return an image letterboxed to the model's input, with a grey border."""
    from foveate.data.boxes.views import letterboxed  # imports torchvision, which takes more than a second

    side = described["size"]
    return letterboxed(pixels, Letterbox((pixels.shape[1], pixels.shape[0]), (side, side))).expand(3, -1, -1)


def placed(described: Mapping[str, Any], boxes: NDArray, size: tuple[int, int]) -> NDArray:
    """Return boxes in an image as boxes in its letterbox."""
    return Letterbox(size, (described["size"],) * 2).to_input(boxes)


def predict(
    model: nn.Module,
    described: Mapping[str, Any],
    source: str,
    root: Path,
    names: Sequence[str],
    folder: Path,
    **options: Any,
) -> Prediction:
    """Write the boxes in images and videos as predictions.csv and predictions.json (COCO's form), and draw them."""
    return predict_boxes(model, described, source, root, names, BoxOptions(**options), folder)


def _relabelled(dataset: BoxSet, numbers: Sequence[int]) -> BoxSet:
    """Return the data set with the model's numbers of the classes; a model may have more classes than the data."""
    known, moved = np.array(numbers, np.int64), copy.copy(dataset)
    moved.truths = tuple(replace(truth, labels=known[truth.labels]) for truth in dataset.truths)
    return moved


def _measure(dataset: BoxSet, results: Sequence[Detections], classes: int, counted: float) -> dict[str, Any]:
    """Return the figures of detections, given in pixels of the input, as plain values."""
    truths = [GroundTruth(*dataset.truth(k).objects) for k in range(len(dataset))]
    moved = [one.on_image(dataset.letterbox(k)) for k, one in enumerate(results)]
    scores = average_precision(truths, moved, classes, conf=counted)
    numbers = {name: _known(value) for name, value in scores.numbers.items()}
    return {
        "score": numbers["ap50"] or 0.0,
        "mAP": numbers["ap"],
        "AP75": numbers["ap75"],
        "count": len(dataset),
        "coco": numbers,
        "classes": [
            {"truths": k.truths, "detections": k.detections, "ap": _known(k.ap), "ap50": _known(k.ap50)}
            for k in scores.classes
        ],
        "precision": [[_known(float(value)) for value in k.precision] for k in scores.classes],
        "confusion": scores.confusion.tolist(),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
