"""Images with one class each, in three splits: the type that `open_data` returns, and how a folder becomes it."""

import statistics
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.data.data_set import DataSet
from foveate.data.images.augment import AUGMENTATION
from foveate.data.images.datasets import ImageFileSet, SceneSet, reduction_for
from foveate.data.images.decode import Greys, chosen_greys
from foveate.data.images.image_folder import Folder
from foveate.data.images.working_copies import IN_RAM, CacheOptions, open_copies
from foveate.data.splits import SPLITS
from foveate.normalisation import Normalisation

__all__ = ["Data", "folder_data"]


@dataclass(frozen=True, kw_only=True)
class Data(DataSet[SceneSet | ImageFileSet]):
    """A data set in three splits, each a dataset of (float32 image (channels, size, size) normalised, int label).

    Each split also has `labels` int64 (N,), `image(i)` and `set_epoch(epoch)`, which training calls before an epoch.
    `boxes` int64 (N, 4) xyxy in pixels, half-open, and `masks` bool (N, H, W) say where the object is, if that is
    known. `split` lists the images of a folder by split; it is saved with a run.
    """

    boxes: dict[str, NDArray[np.int64]] | None = None
    masks: dict[str, NDArray[np.bool_]] | None = None

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """The number of images of each class in each split."""
        counts = {split: Counter(map(int, getattr(self, split).labels)) for split in SPLITS}
        return {split: {name: count[k] for k, name in enumerate(self.classes)} for split, count in counts.items()}


def folder_data(
    folder: Folder,
    imgsz: int | None,
    seed: int,
    augment: bool,
    normalisation: Normalisation,
    greys: Greys | None = None,
    cache: CacheOptions = IN_RAM,
) -> Data:
    """Return the images of a folder as a data set; `imgsz` None takes their median shorter side, at most 224."""
    root, notes = folder.root, list(folder.notes)
    greys, more = chosen_greys((root / item.path for item in folder.split.items), greys)
    notes += more
    if imgsz is None:
        imgsz = int(min(224, max(32, statistics.median(map(min, folder.sizes.values())) // 32 * 32)))
        notes.append(f"imgsz was not given: {imgsz}, from the median shorter side")
    reductions = {item.path: reduction_for(imgsz) for item in folder.split.items}
    copies = open_copies(root, reductions, folder.sizes, folder.digests, greys, cache)
    views = {
        name: ImageFileSet(
            copies,
            getattr(folder.split, name),
            imgsz,
            normalisation,
            seed=seed,
            augment=augment and name == "train",
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
            "layout": folder.layout.words,
            "sources": dict(folder.layout.sources),
            "augmentation": AUGMENTATION if augment else None,
            "greys": greys and list(greys),
            "options": {"imgsz": imgsz, "seed": seed},
            "notes": notes,
        },
        split=folder.split,
        copies=copies,
    )
