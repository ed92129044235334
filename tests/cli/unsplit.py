"""Folders of data without splits, and quick trainings on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foveate.data import DigitScenesOptions, open_box_data

QUICK = ("--imgsz", "32", "--model", "resnet8", "--epochs", "2", "--batch", "8", "--ema", "0.9")
BOXES = ("--task", "detect", "--imgsz", "64", "--epochs", "1", "--batch", "8")


def photos(folder: str, count: int = 14) -> Path:
    """Write one folder of two classes, which is split at random."""
    for k in range(count):
        for kind, shade in (("dark", 40), ("light", 200)):
            path = Path(folder) / kind / f"{k:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(
                np.random.default_rng(k).integers(shade - 40, shade + 40, (32, 32, 3)).astype(np.uint8)
            ).save(path)
    return Path(folder)


def boxed(folder: str, count: int = 24, classes: int = 10) -> Path:
    """Write digit scenes as one YOLO set, which is split at random; digits from `classes` on are the last class."""
    scenes = open_box_data(None, digits=DigitScenesOptions(canvas=64, train=max(count, 10), val=10, test=10))
    root = Path(folder)
    for k in range(count):
        truth = scenes.train.truth(k)
        lines = [
            f"{min(label, classes - 1)} {(x1 + x2) / 128} {(y1 + y2) / 128} {(x2 - x1) / 64} {(y2 - y1) / 64}"
            for (x1, y1, x2, y2), label in zip(truth.boxes.tolist(), truth.labels.tolist(), strict=True)
        ]
        for kind in ("images", "labels"):
            (root / kind / "train").mkdir(parents=True, exist_ok=True)
        Image.fromarray(scenes.image("train", k)).save(root / "images" / "train" / f"{k:02}.png")
        (root / "labels" / "train" / f"{k:02}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(f"names: {[str(k) for k in range(classes)]}\ntrain: images/train\n")
    return root


def record(folder: Path | str, name: str) -> dict[str, Any]:
    return json.loads((Path(folder) / name).read_text(encoding="utf-8"))
