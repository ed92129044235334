"""Data for a detector: digit scenes that Foveate generates, or a folder of images with boxes."""

import hashlib
import json
import math
import os
import statistics
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from foveate.checks import check_least
from foveate.data.boxes.annotations import LEAST_SIDE, LabelledImage
from foveate.data.boxes.box_folder import BoxFolder, open_boxes
from foveate.data.boxes.box_set import ZOOM, BoxSet, ImageFiles, ImagesInMemory, augmentation
from foveate.data.data_set import DataSet
from foveate.data.digits.scene_parts import CLASSES, ORIGIN
from foveate.data.digits.scenes import BoxScenes, DigitScenesOptions, make_box_scenes
from foveate.data.images.decode import Greys, chosen_greys
from foveate.data.images.reduction import Reduction
from foveate.data.images.working_copies import IN_RAM, CacheOptions, open_copies
from foveate.data.splits import SPLITS, Split, check_measured
from foveate.detection.anchors import kmeans_anchors
from foveate.detection.heads import STRIDE
from foveate.errors import DataError, UsageError

__all__ = ["BoxData", "open_box_data"]

_LARGEST_SIZE = 2048  # of imgsz, in pixels
_DIGITS = 2  # of an anchor's sides, in pixels


@dataclass(frozen=True, kw_only=True)
class BoxData(DataSet[BoxSet]):
    """A data set for detection in three splits; `split` lists the images of a folder and is saved with a run."""

    @cached_property
    def anchors(self) -> list[tuple[float, float]]:
        """Return six anchors (width, height) for the training boxes, in pixels of the input, the smallest first.

        Raises:
            DataError: all boxes are smaller than a pixel of the input.
        """
        views = ((image, self.train.letterbox(k)) for k, image in enumerate(self.train.truths))
        boxes = np.concatenate(
            [np.zeros((0, 4)), *(letterbox.to_input(image.boxes[~image.ignored]) for image, letterbox in views)]
        )
        # rounded, so that rounding errors do not make two sizes of one
        sizes = np.round(boxes[:, 2:].astype(np.float64) - boxes[:, :2], _DIGITS)
        seen = sizes[(sizes >= LEAST_SIDE).all(1)]
        if not len(seen):
            larger = _larger(self.size, sizes.min(1, initial=1).max(initial=0))
            raise DataError(
                expected=f"training boxes of at least a pixel at imgsz {self.size}",
                received="only smaller ones",
                do=f"check the annotations; if they are right, {larger}",
            )
        anchors = kmeans_anchors(seen, 6)
        return [(round(float(width), _DIGITS), round(float(height), _DIGITS)) for width, height in anchors]

    def numbers(self) -> dict[str, Any]:
        """Return the anchors, and for each split the numbers of images, objects and ignored objects."""
        return {
            "anchors": self.anchors if len(self.train) else None,
            "images": {split: len(getattr(self, split)) for split in SPLITS},
            "counts": self.counts,
            "ignored": {split: sum(int(p.ignored.sum()) for p in getattr(self, split).truths) for split in SPLITS},
        }

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """The number of objects of each class in each split, without ignored objects."""
        return {split: self._counts(getattr(self, split).truths) for split in SPLITS}

    def _counts(self, images: tuple[LabelledImage, ...]) -> dict[str, int]:
        labels = np.concatenate([np.zeros(0, np.int64), *(image.labels[~image.ignored] for image in images)])
        return dict(zip(self.classes, np.bincount(labels, minlength=len(self.classes)).tolist(), strict=True))


def open_box_data(
    path: str | os.PathLike[str] | None,
    *,
    imgsz: int | None = None,
    seed: int = 0,
    on_defect: str = "drop",
    digits: DigitScenesOptions | None = None,
    flips: bool | None = None,
    split: Split | None = None,
    measured: str | None = None,
    augment: bool = True,
    greys: Greys | None = None,
    cache: CacheOptions = IN_RAM,
) -> BoxData:
    """Open a folder of images with boxes, or generate digit scenes if `path` is None.

    `imgsz` is the side in pixels of the network's input, a multiple of 32; None takes the digits' canvas, or a folder's
    median longer side, at most 416. `seed` decides how a folder is split and how images are augmented; digits have
    their own seed. `on_defect` "drop" leaves defective boxes out, with a note; "refuse" raises. `flips` flips training
    images at random; None flips all images except digits, which must not be mirrored. Without `augment`, training
    uses unchanged images and no mosaics. Images listed in a saved `split` stay in its splits. With `measured` "val"
    or "test", an unsplit folder becomes that split as a whole. `greys` and `cache` are those of `open_data`.

    Raises:
        UsageError: an option is out of range, or a package is missing; the message gives its `pip install`.
        DataError: the folder cannot be used; the message names the file.
    """
    check_least("seed", seed, 0)
    check_measured(measured)
    if imgsz is not None and (
        isinstance(imgsz, bool) or not isinstance(imgsz, int) or imgsz % STRIDE or not STRIDE <= imgsz <= _LARGEST_SIZE
    ):
        raise UsageError(
            expected=f"imgsz as a multiple of {STRIDE} up to {_LARGEST_SIZE} pixels",
            received=repr(imgsz),
            do="choose such a size, for example 128 or 416",
        )
    if path is None:
        return _digits(digits or DigitScenesOptions(), imgsz, seed, bool(flips), augment)
    return _folder(
        open_boxes(Path(path), seed, on_defect, split, measured),
        imgsz,
        seed,
        on_defect,
        flips is not False,
        augment,
        greys,
        cache,
    )


def _digits(options: DigitScenesOptions, imgsz: int | None, seed: int, flips: bool, augment: bool) -> BoxData:
    scenes = make_box_scenes(options)
    imgsz = imgsz or max(STRIDE, options.canvas // STRIDE * STRIDE)
    digest = hashlib.sha256(json.dumps([asdict(options), imgsz, seed, flips], sort_keys=True).encode())
    for part in scenes.values():
        digest.update(part.images.tobytes())
        digest.update(np.concatenate(part.boxes).astype("<f4").tobytes())
        digest.update(np.concatenate(part.labels).astype("<i8").tobytes())
    sets = {
        name: BoxSet(
            _images(name, part),
            ImagesInMemory(part.images),
            imgsz,
            seed=seed,
            augment=augment and name == "train",
            flips=flips,
        )
        for name, part in scenes.items()
    }
    return BoxData(
        name="digit-scenes",
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
        classes=list(CLASSES),
        size=imgsz,
        fingerprint=digest.hexdigest(),
        details={
            "kind": "digit scenes",
            **ORIGIN,
            "augmentation": augmentation(flips) if augment else None,
            "options": asdict(options) | {"imgsz": imgsz, "flips": flips},
            "notes": [],
        },
    )


def _folder(
    folder: BoxFolder,
    imgsz: int | None,
    seed: int,
    on_defect: str,
    flips: bool,
    augment: bool,
    greys: Greys | None,
    cache: CacheOptions,
) -> BoxData:
    root, notes = folder.root, list(folder.notes)
    greys, more = chosen_greys((root / item.path for item in folder.split.items), greys)
    notes += more
    if imgsz is None:
        longer = statistics.median(max(image.size) for part in folder.images.values() for image in part)
        imgsz = int(min(416, max(STRIDE, longer // STRIDE * STRIDE)))
        notes.append(f"imgsz was not given: {imgsz}, from the median longer side")
    reductions = {
        image.path: Reduction(round(imgsz * ZOOM[1]) if name == "train" else imgsz, by="longer")
        for name, images in folder.images.items()
        for image in images
    }
    sizes = {image.path: image.size for images in folder.images.values() for image in images}
    copies = open_copies(root, reductions, sizes, folder.digests, greys, cache)
    sets = {
        name: BoxSet(
            images,
            ImageFiles(copies, [image.path for image in images]),
            imgsz,
            seed=seed,
            augment=augment and name == "train",
            flips=flips,
        )
        for name, images in folder.images.items()
    }
    notes += _tiny_notes(folder, imgsz)
    return BoxData(
        name=root.resolve().name,
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
        classes=list(folder.classes),
        size=imgsz,
        fingerprint=folder.fingerprint(imgsz=imgsz, seed=seed, flips=flips),
        details={
            "kind": "boxes",
            "source": root.resolve().name,
            "layout": folder.layout,
            "greys": greys and list(greys),
            "sources": dict(folder.sources),
            "augmentation": augmentation(flips) if augment else None,
            "options": {"imgsz": imgsz, "seed": seed, "flips": flips, "on_defect": on_defect},
            "notes": notes,
        },
        split=folder.split,
        copies=copies,
    )


def _tiny_notes(folder: BoxFolder, imgsz: int) -> list[str]:
    """Name the classes of which half the training boxes are under a pixel wide or high, and the size that would do."""
    sides: dict[int, list[float]] = {}
    for image in folder.images["train"]:
        scale = imgsz / max(image.size)
        for label, box in zip(image.labels[~image.ignored], image.boxes[~image.ignored], strict=True):
            sides.setdefault(int(label), []).append(scale * float((box[2:] - box[:2]).min()))
    tiny = {label: side for label, part in sides.items() if (side := statistics.median(part)) < LEAST_SIDE}
    if not tiny:
        return []
    names = ", ".join(folder.classes[label] for label in sorted(tiny))
    do = _larger(imgsz, min(tiny.values()))
    return [f"classes whose boxes are mostly under a pixel at --imgsz {imgsz}: {names}; {do}"]


def _larger(imgsz: int, side: float) -> str:
    """Return what makes a side, in pixels of the input, at least a pixel long."""
    enough = math.ceil(imgsz * LEAST_SIDE / side / STRIDE) * STRIDE if side else math.inf
    if enough > _LARGEST_SIZE:
        return f"no size up to {_LARGEST_SIZE} would do: cut the images into parts"
    return f"--imgsz {enough} would do"


def _images(split: str, part: BoxScenes) -> list[LabelledImage]:
    height, width = part.images.shape[1:]
    return [
        LabelledImage.plain(f"{split}/{k:05}", (width, height), boxes, labels)
        for k, (boxes, labels) in enumerate(zip(part.boxes, part.labels, strict=True))
    ]
