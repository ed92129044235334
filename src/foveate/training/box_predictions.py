"""Predict boxes in images, folders and videos; write them as tables and draw them into copies of the images."""

import io
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from foveate import files
from foveate.data.images.decode import Greys, read_image, shown
from foveate.data.images.video import VIDEOS, frames
from foveate.detection import CONF, IOU, MAX_DET
from foveate.detection.boxes import Letterbox
from foveate.detection.detections import Detections
from foveate.errors import DataError, counted
from foveate.gates.draw_boxes import draw_boxes
from foveate.models import YOLOv4Tiny
from foveate.models.detectors import detect
from foveate.training.tasks import Prediction

COLUMNS = ("file", "frame", "class", "confidence", "left", "top", "right", "bottom", "error")
# lists the images that predictions drew, so that a later one can remove them; complete even after an interruption
DRAWN = ".drawn.jsonl"
_LARGEST_JPEG = 65_500  # pixels a side
_LONGEST_NAME = 200  # bytes: file systems allow 255, and the name of a drawn image is longer than the file's


@dataclass(frozen=True)
class BoxOptions:
    """Thresholds, images in a batch, the step between frames of a video, and whether to draw the boxes."""

    conf: float = CONF
    iou: float = IOU
    max_det: int = MAX_DET
    batch: int = 8
    every: int = 1
    pictures: bool = True


@dataclass(frozen=True)
class Shot:
    """An image or a frame of a video, RGB uint8 (H, W, 3), or the reason why it has no pixels."""

    file: str
    frame: int | None = None
    pixels: NDArray[np.uint8] | None = None
    error: str | None = None


def predict_boxes(
    model: nn.Module,
    described: Mapping[str, Any],
    source: str,
    root: Path,
    names: Sequence[str],
    options: BoxOptions,
    folder: Path,
) -> Prediction:
    """Write predictions.csv, predictions.json and the images with their boxes drawn into the folder.

    predictions.json has COCO's form: images, categories and annotations with scores; boxes are x, y, width, height in
    pixels. A drawn image has the name of its file, or its id in predictions.json if that name is too long.
    """
    classes = list(map(str, described["classes"]))
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    drawn: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    for shot, found in _look(_quickest(model), described["size"], described.get("greys"), root, names, options):
        number = len(images) + 1
        images.append({"id": number, **_image(shot)})
        rows += _rows(shot, found, classes)
        annotations += [
            {"id": k, "image_id": number, **one} for k, one in enumerate(_annotations(found), len(annotations) + 1)
        ]
        if options.pictures and shot.pixels is not None:
            drawn.append(_draw(shot.pixels, found, classes, folder, _drawn(shot, number)))
    _keep(folder, drawn)
    files.write_csv(folder / "predictions.csv", rows, COLUMNS)
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(classes)]
    record = {"schema": 1, "model": source, "images": images, "categories": categories, "annotations": annotations}
    files.write_json(folder / "predictions.json", record)
    counts = Counter(classes[one["category_id"] - 1] for one in annotations)
    boxes = ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "nothing"
    errors = tuple(image["error"] for image in images if image["error"])
    written = (folder / "predictions.csv", *([folder / "pictures"] if options.pictures else []))
    return Prediction(record, f"{counted(len(images) - len(errors), 'image')}: {boxes}", written, errors)


def forget_boxes(folder: Path) -> None:
    """Remove the files of an earlier prediction of boxes from a folder that is now used to predict classes."""
    _keep(folder, ())
    table = folder / "predictions.csv"
    if table.is_file() and table.read_bytes().partition(b"\n")[0].decode(errors="replace").strip() == ",".join(COLUMNS):
        (folder / "predictions.json").unlink(missing_ok=True)


def _look(
    model: nn.Module, side: int, greys: Greys | None, root: Path, names: Sequence[str], options: BoxOptions
) -> Iterator[tuple[Shot, Detections]]:
    """Yield every shot with its detections, in the order of the files."""
    from foveate.data.boxes.views import letterboxed  # imports torchvision, which takes more than a second

    device = next(model.parameters()).device
    thresholds = {"conf": options.conf, "iou": options.iou, "max_det": options.max_det}
    shots = (shot for name in names for shot in _shots(root, name, options.every, greys))
    while batch := list(islice(shots, options.batch)):
        boxes = {
            id(shot): Letterbox((shot.pixels.shape[1], shot.pixels.shape[0]), (side, side))
            for shot in batch
            if shot.pixels is not None
        }
        images = [
            letterboxed(shot.pixels, boxes[id(shot)]).expand(3, -1, -1) for shot in batch if shot.pixels is not None
        ]
        seen = iter(
            detect(model, torch.stack(images).to(device, memory_format=torch.channels_last), **thresholds)
            if images
            else ()
        )
        for shot in batch:
            if shot.pixels is None:
                yield shot, Detections([], [], [])
            else:
                yield shot, next(seen).on_image(boxes[id(shot)])


def _quickest(model: nn.Module) -> nn.Module:
    return model.fused() if isinstance(model, YOLOv4Tiny) else model


def _shots(root: Path, name: str, every: int, greys: Greys | None) -> Iterator[Shot]:
    path = root / name
    try:
        if path.suffix.lower() in VIDEOS:
            yield from (Shot(name, number, pixels) for number, pixels in frames(path, every))
        else:
            yield Shot(name, None, read_image(path, greys=greys))
    except DataError as error:
        yield Shot(name, error=f"expected {error.expected}; received {error.received}")


def _rows(shot: Shot, found: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each box; an unreadable file has one row with the reason, an image without boxes has none."""
    common = {"file": shown(shot.file), "frame": shot.frame}
    if shot.error:
        return [{**common, "error": shown(shot.error)}]
    sides = ("left", "top", "right", "bottom")
    return [
        {**common, "class": shown(classes[int(label)]), "confidence": round(float(score), 4)}
        | {side: round(float(value), 1) for side, value in zip(sides, box, strict=True)}
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
    ]


def _image(shot: Shot) -> dict[str, Any]:
    height, width = (None, None) if shot.pixels is None else shot.pixels.shape[:2]
    return {"file_name": shot.file, "width": width, "height": height, "frame": shot.frame, "error": shot.error}


def _annotations(found: Detections) -> list[dict[str, Any]]:
    return [
        {"category_id": int(label) + 1, "score": float(score)}
        | {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top), "iscrowd": 0}
        for (left, top, right, bottom), score, label in zip(
            found.boxes.tolist(), found.scores, found.labels, strict=True
        )
    ]


def _drawn(shot: Shot, number: int) -> str:
    """Return the path of a drawn shot in the folder of the prediction, without the suffix."""
    path = Path("pictures", shot.file if shot.frame is None else f"{shot.file}-{shot.frame:06}")
    return (path if len(os.fsencode(path.name)) <= _LONGEST_NAME else path.with_name(str(number))).as_posix()


def _draw(pixels: NDArray[np.uint8], found: Detections, classes: Sequence[str], folder: Path, place: str) -> str:
    """Write an image with its boxes drawn to a path in the folder, and return the path with the suffix."""
    rising = found.scores.argsort(kind="stable")  # the highest score on top
    labels = found.labels[rising].tolist()
    words = [f"{classes[label]} {score:.2f}" for label, score in zip(labels, found.scores[rising], strict=True)]
    drawing, content = draw_boxes(pixels, found.boxes[rising], labels, words), io.BytesIO()
    suffix, form = (".jpg", "JPEG") if max(drawing.shape) <= _LARGEST_JPEG else (".png", "PNG")
    Image.fromarray(drawing).save(content, form, quality=90)
    files.append_line(folder / DRAWN, {"picture": place + suffix})
    files.write_bytes(folder / (place + suffix), content.getvalue())
    return place + suffix


def _keep(folder: Path, drawn: Collection[str]) -> None:
    """Remove images that earlier predictions drew in the folder and this one did not; other files stay."""
    for place in {str(line.get("picture")) for line in files.read_lines(folder / DRAWN)} - {*drawn}:
        path = folder / place
        if path.resolve().is_relative_to(folder.resolve() / "pictures") and path.is_file():
            path.unlink()
            for above in path.relative_to(folder).parents[:-1]:
                with suppress(OSError):  # the folder holds other files
                    (folder / above).rmdir()
    if drawn:
        files.write_bytes(folder / DRAWN, "".join(json.dumps({"picture": place}) + "\n" for place in drawn).encode())
    else:
        (folder / DRAWN).unlink(missing_ok=True)
