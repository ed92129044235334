"""What `foveate predict` does with a detector: boxes in images, folders and videos, as tables and as pictures."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.checks import check_least
from foveate.cli.runs import Trained
from foveate.detection import CONF, IOU, MAX_DET
from foveate.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from foveate.detection.detections import Detections

COLUMNS = ("file", "frame", "class", "confidence", "left", "top", "right", "bottom", "error")
DRAWN = ".drawn.jsonl"  # which pictures are ours, so that a later prediction can replace them; complete even when one is cut short
_LARGEST_JPEG = 65_500  # pixels a side
_LONGEST_NAME = 200  # bytes: disks hold 255, and the name of what is drawn is longer than the file's


@dataclass(frozen=True)
class Looking:
    """How to look, and whether to draw what is seen; of a video, each `every`-th frame is looked at.

    Raises:
        UsageError: an option with which nothing would be looked at or found.
    """

    conf: float = CONF
    iou: float = IOU
    max_det: int = MAX_DET
    batch: int = 8
    every: int = 1
    pictures: bool = True

    def __post_init__(self) -> None:
        """Refuse what would look at nothing."""
        from foveate.detection.nms import check_thresholds

        check_thresholds(self.conf, self.iou, self.max_det)
        check_least("batch", self.batch, 1)
        check_least("every", self.every, 1)


@dataclass(frozen=True)
class Shot:
    """A picture or a frame of a video, RGB uint8 (H, W, 3); without pixels, why there are none."""

    file: str
    frame: int | None = None
    pixels: "NDArray[np.uint8] | None" = None
    error: str | None = None


def predict_boxes(trained: Trained, model: "nn.Module", root: Path, names: Sequence[str], looking: Looking, folder: Path) -> dict[str, Any]:
    """Write predictions.csv, predictions.json and the pictures with their boxes into the folder; return what predictions.json holds.

    That is COCO's form: images, categories and annotations, each with its score; boxes are x, y, width, height in pixels. A picture whose
    name cannot be lengthened is drawn under the number that it has there.
    """
    from foveate import files

    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    drawn: list[str] = []
    folder.mkdir(parents=True, exist_ok=True)
    for shot, found in _look(_quickest(model), trained.data["size"], root, names, looking):
        number = len(images) + 1
        images.append({"id": number, **_image(shot)})
        rows += _rows(shot, found, trained.classes)
        annotations += [{"id": k, "image_id": number, **one} for k, one in enumerate(_annotations(found), len(annotations) + 1)]
        if looking.pictures and shot.pixels is not None:
            drawn.append(_draw(shot.pixels, found, trained.classes, folder, _drawn(shot, number)))
    _keep(folder, drawn)
    files.write_csv(folder / "predictions.csv", rows, COLUMNS)
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(trained.classes)]
    record = {"schema": 1, "model": str(trained.folder.resolve()), "images": images, "categories": categories, "annotations": annotations}
    files.write_json(folder / "predictions.json", record)
    return record


def forget_boxes(folder: Path) -> None:
    """Remove what an earlier prediction of boxes left in a folder that is used for another of classes."""
    _keep(folder, ())
    table = folder / "predictions.csv"
    if table.is_file() and table.read_bytes().partition(b"\n")[0].decode(errors="replace").strip() == ",".join(COLUMNS):
        (folder / "predictions.json").unlink(missing_ok=True)


def _look(model: "nn.Module", side: int, root: Path, names: Sequence[str], looking: Looking) -> "Iterator[tuple[Shot, Detections]]":
    """Yield every shot with what was found in it, in the order of the files."""
    import torch

    from foveate.data.boxes.views import letterboxed
    from foveate.detection.boxes import Letterbox
    from foveate.detection.detections import Detections
    from foveate.models.detectors import detect

    device = next(model.parameters()).device
    thresholds = {"conf": looking.conf, "iou": looking.iou, "max_det": looking.max_det}
    shots = (shot for name in names for shot in _shots(root, name, looking.every))
    while batch := list(islice(shots, looking.batch)):
        boxes = {
            id(shot): Letterbox((shot.pixels.shape[1], shot.pixels.shape[0]), (side, side)) for shot in batch if shot.pixels is not None
        }
        images = [letterboxed(shot.pixels, boxes[id(shot)]).expand(3, -1, -1) for shot in batch if shot.pixels is not None]
        seen = iter(detect(model, torch.stack(images).to(device, memory_format=torch.channels_last), **thresholds) if images else ())
        for shot in batch:
            if shot.pixels is None:
                yield shot, Detections([], [], [])
            else:
                yield shot, next(seen).on_image(boxes[id(shot)])


def _quickest(model: "nn.Module") -> "nn.Module":
    from foveate.models import YOLOv4Tiny

    return model.fused() if isinstance(model, YOLOv4Tiny) else model


def _shots(root: Path, name: str, every: int) -> Iterator[Shot]:
    from foveate.data.images.decode import read_image
    from foveate.data.images.video import VIDEOS, frames

    path = root / name
    try:
        if path.suffix.lower() in VIDEOS:
            yield from (Shot(name, number, pixels) for number, pixels in frames(path, every))
        else:
            yield Shot(name, None, read_image(path))
    except DataError as error:
        yield Shot(name, error=f"expected {error.expected}; received {error.received}")


def _rows(shot: Shot, found: "Detections", classes: Sequence[str]) -> list[dict[str, Any]]:
    """A row a box; a file that does not read has one row with the reason, a picture without boxes has none."""
    from foveate.data.images.decode import shown

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


def _annotations(found: "Detections") -> list[dict[str, Any]]:
    return [
        {"category_id": int(label) + 1, "score": float(score)}
        | {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top), "iscrowd": 0}
        for (left, top, right, bottom), score, label in zip(found.boxes.tolist(), found.scores, found.labels, strict=True)
    ]


def _drawn(shot: Shot, number: int) -> str:
    """Where a shot is drawn in the folder of the prediction, without the suffix."""
    path = Path("pictures", shot.file if shot.frame is None else f"{shot.file}-{shot.frame:06}")
    return (path if len(os.fsencode(path.name)) <= _LONGEST_NAME else path.with_name(str(number))).as_posix()


def _draw(pixels: "NDArray[np.uint8]", found: "Detections", classes: Sequence[str], folder: Path, place: str) -> str:
    """Draw a picture with its boxes at a place in the folder, and return the place with the suffix."""
    import io

    from PIL import Image

    from foveate import files
    from foveate.gates.draw_boxes import draw_boxes

    rising = found.scores.argsort(kind="stable")  # the surest on top
    labels = found.labels[rising].tolist()
    words = [f"{classes[label]} {score:.2f}" for label, score in zip(labels, found.scores[rising], strict=True)]
    picture, content = draw_boxes(pixels, found.boxes[rising], labels, words), io.BytesIO()
    suffix, form = (".jpg", "JPEG") if max(picture.shape) <= _LARGEST_JPEG else (".png", "PNG")
    Image.fromarray(picture).save(content, form, quality=90)
    files.append_line(folder / DRAWN, {"picture": place + suffix})
    files.write_bytes(folder / (place + suffix), content.getvalue())
    return place + suffix


def _keep(folder: Path, drawn: Collection[str]) -> None:
    """Remove the pictures that earlier predictions drew in the folder and this one did not; what others put there stays."""
    import json

    from foveate import files

    for place in {str(line.get("picture")) for line in files.read_lines(folder / DRAWN)} - {*drawn}:
        path = folder / place
        if path.resolve().is_relative_to(folder.resolve() / "pictures") and path.is_file():
            path.unlink()
            for above in path.relative_to(folder).parents[:-1]:
                with suppress(OSError):  # it holds others
                    (folder / above).rmdir()
    if drawn:
        files.write_bytes(folder / DRAWN, "".join(json.dumps({"picture": place}) + "\n" for place in drawn).encode())
    else:
        (folder / DRAWN).unlink(missing_ok=True)
