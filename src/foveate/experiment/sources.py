"""Images as a user names them: the images in a folder, without those in folders of our own results; their pixels."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.data.images.datasets import reduction_for
from foveate.data.images.decode import SUFFIXES, Greys, check_image, read_image, shown, to_rgb
from foveate.errors import DataError, UsageError, counted
from foveate.experiment.run_folder import RECORDS
from foveate.gates.explanation import FILES
from foveate.training.box_predictions import DRAWN

# Files that show a folder is ours: of a training or a study, of predicted boxes, of an interrupted prediction, of an
# explanation.
_OWN = ({*RECORDS}, {"predictions.csv", "predictions.json"}, {DRAWN}, {*FILES})


def images_in(source: Path, suffixes: frozenset[str]) -> tuple[list[str], int]:
    """Return the relative paths of the images in a folder and its subfolders, sorted, and how many folders are ours.

    Hidden files and folders of our own results are left out; `source` itself may be one.
    """
    found: list[str] = []
    results = 0
    for folder, folders, names in os.walk(source):
        folders.sort()
        if Path(folder) != source and any(kind <= {*names} for kind in _OWN):
            results += 1
            folders.clear()
            continue
        wanted = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes]
        found += [(Path(folder) / name).relative_to(source).as_posix() for name in wanted]
    return sorted(found), results


def listed(images: Any, boxes: Sequence[Any] | None) -> Sequence[Any]:
    """Return images one by one: a folder gives its files, a batch its images, one image itself.

    Raises UsageError for none, and for boxes of another number of images.
    """
    if isinstance(images, str | os.PathLike | Image.Image) or (hasattr(images, "ndim") and images.ndim == 3):
        images = [images]
    if isinstance(images, Sequence) and any(
        isinstance(one, str | os.PathLike) and Path(one).is_dir() for one in images
    ):
        images = find_images(images)
    if not len(images):
        raise UsageError(expected="at least one image", received="none", do="pass files, arrays, images or a tensor")
    if boxes is not None and len(boxes) != len(images):
        raise UsageError(
            expected=f"boxes (M, 4) for each of {counted(len(images), 'image')}",
            received=f"those of {len(boxes)}",
            do="pass an empty list for an image without boxes",
        )
    return images


def find_images(images: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the image files named, and those in the folders named, with their subfolders, sorted.

    Raises DataError where there is none.
    """
    found: list[Path] = []
    for place in map(Path, images):
        inside = [place / name for name in images_in(place, SUFFIXES)[0]] if place.is_dir() else [place]
        if not inside or not inside[0].exists():
            received = f"no such file: {shown(place)}" if not place.is_dir() else f"none in {shown(place)}"
            raise DataError(expected=f"images ({', '.join(sorted(SUFFIXES))})", received=received, do="name others")
        found += inside
    return found


def name_of(image: Any, k: int) -> str:
    """Return the name of image k: that of its file, or its number from 1."""
    return shown(Path(image).name) if isinstance(image, str | os.PathLike) else f"image {k + 1}"


def pixels_of(image: Any, side: int, greys: Greys | None = None) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return an image as uint8 (H, W, 3) of at least `side` pixels, and the width and height that it really has.

    Raises DataError for an unreadable file, and UsageError for what is no image.
    """
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return read_image(path, reduction=reduction_for(side), greys=greys), check_image(path)
    array = np.asarray(to_rgb(image, greys) if isinstance(image, Image.Image) else image)
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        return array, (array.shape[1], array.shape[0])
    raise UsageError(
        expected="a file, a PIL image, an array uint8 (H, W, 3), or a tensor (C, H, W)",
        received=f"an array of shape {array.shape} and type {array.dtype}",
        do="convert it, or pass the model's own input as a tensor",
    )
