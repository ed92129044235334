"""The share of a training's time that it waits for images: caches and workers, on small photos and on large ones."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Subset

from benchmarks.harness import ROOT, make_record
from benchmarks.options import Options
from foveate.data import open_data
from foveate.data.images.augment import random_view
from foveate.data.images.working_copies import CACHES, CacheKind, CacheOptions
from foveate.experiment.environment import load_average
from foveate.experiment.latency import summary
from foveate.files import CACHE
from foveate.models import build
from foveate.training import EpochRow, FitOptions, fit

PHOTOS = ROOT.parent / "shared" / "data" / "trashnet6"
HOST, SIZE, BATCH = "timm/resnet18", 224, 24
LARGE = (4032, 3024)  # the size of a phone's photo
EPOCHS = ("first", "second")
TARGET = 0.9  # of the time, in which training should compute
# Of each kind of photos: their size if they are enlarged, the steps of an epoch, and the workers.
KINDS: Mapping[str, tuple[tuple[int, int] | None, int, tuple[int, ...]]] = {
    "as they are": (None, 3, (0, 2, 4)),
    "enlarged": (LARGE, 6, (0, 2)),
}
_CLASSES, _NOISE, _QUALITY = 6, 6, 90
_DRAWN = 24  # enlarged photos; later ones repeat them, with a byte more at the end of the file

Trainings = dict[tuple[CacheKind, int], list[list[EpochRow]]]


def measure(
    options: Options,
    *,
    photos: Path = PHOTOS,
    host: str = HOST,
    size: int = SIZE,
    batch: int = BATCH,
    kinds: Mapping[str, tuple[tuple[int, int] | None, int, tuple[int, ...]]] = KINDS,
) -> Iterator[dict[str, Any]]:
    """Yield one record: for each kind of photos and each epoch, the time of a step and the share of it that waited.

    Without the photos, the reason is printed and nothing is measured.
    """
    if not photos.is_dir():
        print(f"data_loading: needs the photos of TrashNet in {photos.name}, which are not on this machine")
        return
    random_view(np.zeros((8, 8, 3), np.uint8), 8, 0)  # imports torchvision, once for each process
    before, results = load_average(), []
    for kind, (enlarged, steps, workers) in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "photos"
            sides = _lay_out(photos, root, steps * batch, enlarged)
            trainings: Trainings = {(cache, count): [] for cache in CACHES for count in workers}
            for number in range(options.rounds):
                for k in np.random.default_rng(number).permutation(len(trainings)):
                    cache, count = list(trainings)[k]
                    rows = _train(root, Path(folder) / "cache", cache, count, host, size, batch)
                    trainings[cache, count].append(rows)
                    waited = ", ".join(f"{100 * row.waiting:.1f} %" for row in rows)
                    print(f"{kind}, {cache}, {count} workers: waited {waited}", flush=True)
        about = {"photos": kind, "pixels": list(sides), "host": host, "size": size, "batch": batch, "steps": steps}
        for epoch, name in enumerate(EPOCHS):
            results.append({**about, "epoch": name, "target": TARGET, "calls": _calls(trainings, epoch, steps)})
    yield make_record("data_loading", options.rounds, before, results)


def _train(root: Path, kept: Path, cache: CacheKind, workers: int, host: str, size: int, batch: int) -> list[EpochRow]:
    """Train for two epochs; the cache is empty before the first."""
    shutil.rmtree(kept, ignore_errors=True)
    with patch.dict(os.environ, {CACHE: str(kept)}):
        data = open_data(root, imgsz=size, cache=CacheOptions(cache))
        torch.manual_seed(0)
        model = build(host, len(data.classes), channels=3, imgsz=size)
        few = SimpleNamespace(train=data.train, val=Subset(data.val, range(1)), classes=data.classes)  # pyright: ignore[reportArgumentType]
        options = FitOptions(epochs=len(EPOCHS), batch=batch, lr=1e-4, workers=workers, device="cpu")
        return fit(model, few, options)


def _calls(trainings: Trainings, epoch: int, steps: int) -> dict[str, dict[str, float]]:
    """Return by cache and workers the time of a step of an epoch, and the median and the least share that computed."""
    seconds = {key: np.array([rows[epoch].seconds / steps for rows in rounds]) for key, rounds in trainings.items()}
    busy = {key: [1 - rows[epoch].waiting for rows in rounds] for key, rounds in trainings.items()}
    baseline = next(iter(seconds.values()))
    return {
        f"{cache}, {workers}": {
            **summary(seconds[cache, workers], baseline),
            "busy": float(np.median(busy[cache, workers])),
            "least_busy": min(busy[cache, workers]),
        }
        for cache, workers in trainings
    }


def _lay_out(photos: Path, root: Path, count: int, enlarged: tuple[int, int] | None) -> tuple[int, int]:
    """Copy `count` training photos, and a few others for val and test; return the width and height of the first.

    Enlarged photos are smooth, so they get noise: a file then has the bytes of a photo of that size.
    """
    noise, sides = np.random.default_rng(0), (0, 0)
    for split, wanted in (("test", _CLASSES), ("val", _CLASSES), ("train", count)):
        classes = sorted(folder for folder in (photos / split).iterdir() if folder.is_dir())
        for k in range(wanted):
            found = sorted(classes[k % len(classes)].glob("*.jpg"))
            new = root / split / classes[k % len(classes)].name / f"{k:04}.jpg"
            new.parent.mkdir(parents=True, exist_ok=True)
            source = found[k // len(classes) % len(found)]
            if enlarged is None:
                shutil.copy(source, new)
            elif k < _DRAWN:
                _enlarge(source, new, enlarged, noise)
            else:
                earlier = root / split / classes[(k % _DRAWN) % len(classes)].name / f"{k % _DRAWN:04}.jpg"
                new.write_bytes(earlier.read_bytes() + bytes(k // _DRAWN))
            with Image.open(new) as image:
                sides = image.size
    return sides


def _enlarge(source: Path, new: Path, size: tuple[int, int], noise: np.random.Generator) -> None:
    with Image.open(source) as image:
        large = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), np.int16)
    grain = noise.normal(0, _NOISE, (256, size[0], 1)).astype(np.int16)
    grain = np.concatenate([grain] * -(-size[1] // len(grain)))[: size[1]]
    Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).save(new, quality=_QUALITY)
