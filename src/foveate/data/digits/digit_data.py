"""Cluttered digits as a data set with one class per image."""

import hashlib
import json
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from foveate.data.digits.cluttered import DigitsOptions, make_scenes
from foveate.data.digits.scene_parts import CLASSES, ORIGIN
from foveate.data.images.datasets import SceneSet
from foveate.data.images.image_data import Data
from foveate.data.splits import SPLITS
from foveate.normalisation import Normalisation


def digit_data(options: DigitsOptions, normalisation: Normalisation | None = None) -> Data:
    """Generate cluttered digits; `normalisation` None takes the mean and deviation of the training pixels."""
    scenes = make_scenes(options)
    normalisation = (normalisation or _own_normalisation(scenes["train"].images, options.channels)).for_channels(
        options.channels
    )
    digest = hashlib.sha256(json.dumps(asdict(options), sort_keys=True).encode())
    for split in SPLITS:
        digest.update(scenes[split].images.tobytes())
        digest.update(scenes[split].labels.astype("<i8").tobytes())
    sets = {name: SceneSet(part.images, part.labels, normalisation) for name, part in scenes.items()}
    return Data(
        name="cluttered-digits",
        train=sets["train"],
        val=sets["val"],
        test=sets["test"],
        classes=list(CLASSES),
        channels=options.channels,
        size=options.canvas,
        normalisation=normalisation,
        fingerprint=digest.hexdigest(),
        details={"kind": "digits", **ORIGIN, "augmentation": None, "options": asdict(options), "notes": []},
        boxes={name: part.boxes for name, part in scenes.items()},
        masks={name: part.masks for name, part in scenes.items()},
    )


def _own_normalisation(pixels: NDArray[np.uint8], channels: int) -> Normalisation:
    counts = np.bincount(pixels.ravel(), minlength=256)  # exact: integer sums do not depend on their order
    levels = np.arange(256) / 255
    mean = float((counts * levels).sum() / pixels.size)
    deviation = float(np.sqrt((counts * (levels - mean) ** 2).sum() / pixels.size))
    return Normalisation((mean,) * channels, (deviation,) * channels, "the training pixels'")
