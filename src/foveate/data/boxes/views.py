"""Views of an image and its boxes: letterbox, random crop, mosaic of four; torchvision transforms both.

All random numbers come from the generator that is passed, so a view depends only on its seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.data.boxes.annotations import LEAST_SIDE, LabelledImage
from foveate.detection.boxes import Letterbox
from foveate.models.torchvision_guard import ensure_torchvision

ensure_torchvision()
from torchvision.transforms.v2 import functional as ops  # noqa: E402 - the guard comes first
from torchvision.tv_tensors import BoundingBoxes  # noqa: E402

__all__ = ["GREY", "View", "letterboxed", "mosaic", "mosaic_tiles", "part"]

GREY = 0.5  # the padding
_VISIBLE = 0.4  # an object with less than this share of its area inside the view is ignored
_CENTRE = (0.3, 0.7)  # the point where the four parts of a mosaic meet, as a share of its side
_JITTER = (0.7, 1.4)  # of brightness, contrast and saturation


@dataclass(frozen=True)
class View:
    """An image float32 (C, H, W) in 0..1, boxes float32 (M, 4) xyxy in pixels, labels int64 (M,), ignored bool (M,)."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    ignored: Tensor


def letterboxed(pixels: NDArray[np.uint8], letterbox: Letterbox) -> Tensor:
    """Return an image, uint8 (H, W) or (H, W, 3), letterboxed with grey: float32 (C, height, width) in 0..1."""
    (width, height), left, top = letterbox.inner, letterbox.pad_x, letterbox.pad_y
    image = _resized(pixels, width, height)
    return ops.pad(
        image, [left, top, letterbox.target[0] - left - width, letterbox.target[1] - top - height], fill=GREY
    )


def part(
    pixels: NDArray[np.uint8],
    truth: LabelledImage,
    inner: tuple[int, int],
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    flips: bool,
) -> View:
    """Resize an image to `inner`, and return a random crop of `size` (width, height) with random colours and flip.

    `pixels` may be a smaller copy of the image.
    """
    width, height = inner
    image = _recoloured(_resized(pixels, width, height), rng)
    whole = torch.from_numpy(truth.boxes * np.array([width / truth.size[0], height / truth.size[1]] * 2, np.float32))
    boxes = BoundingBoxes(whole, format="XYXY", canvas_size=(height, width))  # pyright: ignore[reportCallIssue]
    left, top = (round(rng.uniform(min(0, room), max(0, room))) for room in (size[0] - width, size[1] - height))
    border = [left, top, size[0] - left - width, size[1] - top - height]  # a negative border crops the image
    image, boxes = ops.pad(image, border, fill=GREY), ops.pad(boxes, border)
    if flips and rng.random() < 0.5:
        image, boxes = ops.horizontal_flip(image), ops.horizontal_flip(boxes)
    boxes = boxes.as_subclass(Tensor)
    seen = _sides(boxes)
    kept = (seen >= LEAST_SIDE).all(1)
    ignored = torch.from_numpy(truth.ignored) | (seen.prod(1) < _VISIBLE * _sides(whole).prod(1))
    return View(image, boxes[kept], torch.from_numpy(truth.labels)[kept], ignored[kept])


def mosaic_tiles(size: int, rng: np.random.Generator) -> list[tuple[int, int, int, int]]:
    """Return four boxes (left, top, right, bottom) that meet at a random point and fill a square."""
    x, y = (round(size * share) for share in rng.uniform(*_CENTRE, size=2))
    return [(0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)]


def mosaic(parts: Sequence[View], tiles: Sequence[tuple[int, int, int, int]]) -> View:
    """Put each part on its tile."""
    right, bottom = tiles[-1][2:]
    image = parts[0].image.new_empty(len(parts[0].image), bottom, right)
    for view, (left, top, right, bottom) in zip(parts, tiles, strict=True):
        image[:, top:bottom, left:right] = view.image
    boxes = torch.cat(
        [view.boxes + torch.tensor([left, top, left, top]) for view, (left, top, *_) in zip(parts, tiles, strict=True)]
    )
    return View(image, boxes, torch.cat([view.labels for view in parts]), torch.cat([view.ignored for view in parts]))


def _resized(pixels: NDArray[np.uint8], width: int, height: int) -> Tensor:
    # torch warns about read-only memory
    image = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
    image = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
    return ops.to_dtype(ops.resize(image, [height, width], antialias=True), torch.float32, scale=True)


def _recoloured(image: Tensor, rng: np.random.Generator) -> Tensor:
    brightness, contrast, saturation = np.exp(rng.uniform(*np.log(_JITTER), size=3)).tolist()
    image = ops.adjust_contrast(ops.adjust_brightness(image, brightness), contrast)
    return ops.adjust_saturation(image, saturation) if len(image) == 3 else image


def _sides(boxes: Tensor) -> Tensor:
    return boxes[:, 2:] - boxes[:, :2]
