"""Sample images of circles and squares: in folders by class, and with boxes."""

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate import files
from foveate.data.images.decode import shown
from foveate.data.splits import SPLITS
from foveate.errors import UsageError, missing_extra

__all__ = ["CLASSES", "write_samples"]

CLASSES = ("circle", "square")
COUNTS = dict(zip(SPLITS, (16, 8, 8), strict=True))  # images of each class, and images with boxes
SINGLE, SCENE = 48, 96  # pixels
_RADII = (9, 15)
_CENTRES = ((24, 24), (72, 24), (24, 72), (72, 72))  # of the shapes in a scene, far enough apart


def write_samples(folder: str | os.PathLike[str]) -> list[Path]:
    """Write `photos/<split>/<class>/*.png` and, in YOLO's layout, `boxes/` into a folder; return both paths.

    Every call writes the same images. Raises UsageError, and writes nothing, if a file of such a name has other
    content.
    """
    root = Path(folder)
    wanted = {root / name: content for name, content in (*_photos(), *_boxes())}
    for path, content in wanted.items():
        if path.exists() and not (path.is_file() and path.read_bytes() == content):
            raise UsageError(
                expected=f"a folder without a file {shown(path)}",
                received="a file of that name with other content",
                do="name a new folder: foveate sample-data FOLDER",
            )
    for path, content in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, content)
    return [root / "photos", root / "boxes"]


def _photos() -> Iterator[tuple[str, bytes]]:
    """Yield the images of one shape by their names."""
    for part, split in enumerate(SPLITS):
        for label, name in enumerate(CLASSES):
            for k in range(COUNTS[split]):
                random = np.random.default_rng([0, part, label, k])
                pixels = _ground(random, SINGLE)
                radius = int(random.integers(*_RADII))
                x, y = map(int, random.integers(radius + 1, SINGLE - radius - 1, 2))
                _draw(pixels, label, x, y, radius, random)
                yield f"photos/{split}/{name}/{k:02}.png", _png(pixels)


def _boxes() -> Iterator[tuple[str, bytes]]:
    """Yield the scenes of one to four shapes by their names, each with its file of labels, and data.yaml."""
    for part, split in enumerate(SPLITS):
        for k in range(COUNTS[split]):
            random = np.random.default_rng([1, part, k])
            pixels, lines = _ground(random, SCENE), []
            labels = random.permutation([k % 2, 1 - k % 2, *random.integers(0, 2, 2)])[: 1 + k % 4]
            for label, (x, y) in zip(map(int, labels), random.permutation(_CENTRES), strict=False):
                radius = int(random.integers(*_RADII))
                x, y = (int(at + random.integers(-6, 7)) for at in (x, y))
                _draw(pixels, label, x, y, radius, random)
                side = (2 * radius + 1) / SCENE
                lines.append(f"{label} {(x + 0.5) / SCENE:.6f} {(y + 0.5) / SCENE:.6f} {side:.6f} {side:.6f}\n")
            yield f"boxes/images/{split}/{k:02}.png", _png(pixels)
            yield f"boxes/labels/{split}/{k:02}.txt", "".join(lines).encode()
    yield "boxes/data.yaml", f"names: [{', '.join(CLASSES)}]\n".encode()


def _ground(random: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Return a dark background of one hue with noise, (side, side, 3)."""
    hue = random.integers(20, 90, 3)
    return (hue + random.integers(0, 40, (side, side, 3))).astype(np.uint8)


def _draw(pixels: NDArray[np.uint8], label: int, x: int, y: int, radius: int, random: np.random.Generator) -> None:
    """Draw a circle (label 0) or a square around the pixel (x, y), which spans 2 * radius + 1 pixels."""
    rows, columns = np.abs(np.arange(len(pixels)) - y)[:, None], np.abs(np.arange(len(pixels)) - x)
    inside = rows**2 + columns**2 <= radius**2 if label == 0 else np.maximum(rows, columns) <= radius
    pixels[inside] = (random.integers(130, 216, 3) + random.integers(0, 40, (int(inside.sum()), 3))).astype(np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    try:
        from PIL import Image
    except ImportError:
        raise missing_extra("pillow", "study") from None
    content = BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
