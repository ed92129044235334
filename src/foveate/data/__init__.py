"""Data for a study: cluttered digits, drawn here, or a folder of images."""

import hashlib
import json
import os
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foveate.checks import check_least
from foveate.data.boxes.box_data import BoxData, open_box_data
from foveate.data.digits.cluttered import DigitsOptions, make_scenes
from foveate.data.digits.scenes import DigitScenesOptions
from foveate.data.images.augment import AUGMENTATION
from foveate.data.images.datasets import ColourSet, Memory, PhotoSet, SceneSet
from foveate.data.images.folder import Folder, open_folder
from foveate.data.planted import SIDE, PlantedKind, PlantedOptions, fingerprint, make_planted, planted_kind
from foveate.data.splits import SPLITS, Split, check_measured
from foveate.errors import UsageError
from foveate.normalisation import IMAGENET, Normalisation

__all__ = [
    "SPLITS",
    "AnyData",
    "BoxData",
    "Data",
    "DigitScenesOptions",
    "DigitsOptions",
    "PlantedKind",
    "PlantedOptions",
    "Split",
    "open_box_data",
    "open_data",
    "planted_kind",
]


_PLANTED = Normalisation((0.2,) * 3, (0.25,) * 3, "that of planted data")


@dataclass(frozen=True)
class Data:
    """A data set in three splits, each a dataset of (float32 image (channels, size, size) normalised, int label).

    Each split also has `labels` int64 (N,), `picture(i)` and `set_epoch(epoch)`, which training calls before an epoch.
    `boxes` int64 (N, 4) xyxy in pixels, half-open, and `masks` bool (N, H, W) are the true place of the object, where
    it is known. `split` lists the images of a folder by split; it is saved with a run.
    """

    name: str
    train: SceneSet | PhotoSet
    val: SceneSet | PhotoSet
    test: SceneSet | PhotoSet
    classes: list[str]
    channels: int
    size: int
    normalisation: Normalisation
    fingerprint: str
    details: Mapping[str, Any] = field(default_factory=dict)
    boxes: dict[str, NDArray[np.int64]] | None = None
    masks: dict[str, NDArray[np.bool_]] | None = None
    split: Split | None = None

    def describe(self) -> dict[str, Any]:
        """Return the description of the data for records and reports; it can be written as JSON."""
        counts = {split: Counter(map(int, getattr(self, split).labels)) for split in SPLITS}
        return {
            "name": self.name,
            "classes": self.classes,
            "channels": self.channels,
            "size": self.size,
            "normalisation": self.normalisation.to_dict(),
            "fingerprint": self.fingerprint,
            "counts": {
                split: {name: count[k] for k, name in enumerate(self.classes)} for split, count in counts.items()
            },
            **self.details,
        }

    def picture(self, split: str, index: int) -> NDArray[np.uint8]:
        """Return an image for showing, uint8 (H, W, 3)."""
        return getattr(self, split).picture(index)


AnyData: TypeAlias = Data | BoxData


def open_data(
    path: str | os.PathLike[str] | None,
    *,
    imgsz: int | None = None,
    seed: int = 0,
    digits: DigitsOptions | None = None,
    split: Split | None = None,
    measured: str | None = None,
    augment: bool = True,
    normalisation: Normalisation | None = None,
    planted: PlantedOptions | None = None,
    on_defect: str = "refuse",
) -> Data:
    """Open a folder of images; without a `path` draw cluttered digits, for "planted:where" and the like planted data.

    `imgsz` is the side in pixels of the model's input. For digits it replaces their canvas; for a folder, None takes
    the median shorter side, at most 224. `seed` decides how a folder is split and augmented, and how planted data
    without `planted` are drawn; digits have a seed of their own. With `augment`, training photos are shown in random
    views (`foveate.data.images.augment`); digits never are. Images that a saved `split` lists are in the splits that it
    names. With `measured` "val" or "test", a folder that is not split is that split as a whole. `normalisation` None
    takes ImageNet's for photos, and the mean and deviation of the training pixels for digits. `on_defect` "drop" leaves
    out the images of a folder that cannot be read, "refuse" makes them an error.

    Raises:
        UsageError: an option is out of range, or scikit-learn is missing.
        DataError: the folder cannot be used; the file or class is named.
    """
    check_least("seed", seed, 0)
    check_measured(measured)
    if imgsz is not None and (not isinstance(imgsz, int) or not 16 <= imgsz <= 2048):
        raise UsageError(
            expected="imgsz from 16 to 2048 pixels",
            received=repr(imgsz),
            do="choose a size within that range, such as 96 or 224",
        )
    if path is None:
        digits = digits or DigitsOptions()
        return _digits(replace(digits, canvas=imgsz) if imgsz else digits, normalisation)
    if kind := planted_kind(path):
        planted = planted or PlantedOptions(kind, seed=seed)
        if planted.kind != kind or imgsz not in (None, SIDE):
            raise UsageError(
                expected=f"options of {path}, whose pictures are {SIDE} x {SIDE}",
                received=f"PlantedOptions({planted.kind!r}) and imgsz={imgsz}",
                do=f"give PlantedOptions({kind!r}), and no imgsz",
            )
        return _planted(planted, (normalisation or _PLANTED).for_channels(3))
    folder = open_folder(Path(path), seed, split, measured, on_defect)
    return _folder(folder, imgsz, seed, augment, (normalisation or IMAGENET).for_channels(3))


def _digits(options: DigitsOptions, normalisation: Normalisation | None) -> Data:
    scenes = make_scenes(options)
    normalisation = (normalisation or _own_normalisation(scenes["train"].images, options.channels)).for_channels(
        options.channels
    )
    digest = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
    for split in SPLITS:
        digest.update(scenes[split].images.tobytes())
        digest.update(scenes[split].labels.astype("<i8").tobytes())
    sets = {name: SceneSet(drawn.images, drawn.labels, normalisation) for name, drawn in scenes.items()}
    return Data(
        name="cluttered-digits",
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
        classes=[str(k) for k in range(10)],
        channels=options.channels,
        size=options.canvas,
        normalisation=normalisation,
        fingerprint=digest.hexdigest(),
        details={
            "kind": "digits",
            "source": "scikit-learn's load_digits (UCI, Optical Recognition of Handwritten Digits, CC BY 4.0)",
            "layout": "drawn by Foveate; no source digit is in two splits",
            "augmentation": None,
            "options": asdict(options),
            "notes": [],
        },
        boxes={name: drawn.boxes for name, drawn in scenes.items()},
        masks={name: drawn.masks for name, drawn in scenes.items()},
    )


def _planted(options: PlantedOptions, normalisation: Normalisation) -> Data:
    pictures = make_planted(options)
    sets = {name: ColourSet(drawn.images, drawn.labels, normalisation) for name, drawn in pictures.items()}
    return Data(
        name=f"planted-{options.kind}",
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
        classes=["red", "green", "blue", "yellow"] if options.kind == "where" else ["few", "many"],
        channels=3,
        size=SIDE,
        normalisation=normalisation,
        fingerprint=fingerprint(options, pictures),
        details={
            "kind": "planted",
            "source": "drawn by Foveate; it is known by construction what can help",
            "layout": f"planted:{options.kind}, drawn by Foveate",
            "augmentation": None,
            "options": asdict(options),
            "notes": [],
        },
        boxes={name: drawn.boxes for name, drawn in pictures.items() if drawn.boxes is not None} or None,
    )


def _own_normalisation(pixels: NDArray[np.uint8], channels: int) -> Normalisation:
    counts = np.bincount(pixels.ravel(), minlength=256)  # exact, whatever the order of summation
    levels = np.arange(256) / 255
    mean = float((counts * levels).sum() / pixels.size)
    deviation = float(np.sqrt((counts * (levels - mean) ** 2).sum() / pixels.size))
    return Normalisation((mean,) * channels, (deviation,) * channels, "the training pixels'")


def _folder(folder: Folder, imgsz: int | None, seed: int, augment: bool, normalisation: Normalisation) -> Data:
    root, notes = folder.root, list(folder.notes)
    if imgsz is None:
        imgsz = int(min(224, max(32, statistics.median(map(min, folder.sizes.values())) // 32 * 32)))
        notes.append(f"imgsz was not given: {imgsz}, from the median shorter side")
    memory = Memory()
    views = {
        name: PhotoSet(
            root,
            getattr(folder.split, name),
            imgsz,
            normalisation,
            seed=seed,
            augment=augment and name == "train",
            memory=memory,
        )
        for name in SPLITS
    }
    return Data(
        name=root.resolve().name,
        train=views["train"],
        val=views["val"],
        test=views["test"],
        classes=list(folder.split.classes),
        channels=3,
        size=imgsz,
        normalisation=normalisation,
        fingerprint=folder.fingerprint(imgsz=imgsz, seed=seed),
        details={
            "kind": "folder",
            "source": root.resolve().name,
            "layout": folder.layout,
            "augmentation": AUGMENTATION if augment else None,
            "options": {"imgsz": imgsz, "seed": seed},
            "notes": notes,
        },
        split=folder.split,
    )
