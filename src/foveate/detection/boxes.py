"""Boxes in half-open xyxy pixels: areas, IoU, and the letterbox between an image and the input of a network."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from foveate.errors import UsageError

Array: TypeAlias = np.ndarray[Any, Any]
Size: TypeAlias = tuple[int, int]


def areas(boxes: Array) -> Array:
    """Return the areas (M,) of boxes (M, 4) in square pixels; 0 where a side is not positive."""
    boxes = _floating(boxes)
    return np.maximum(boxes[:, 2] - boxes[:, 0], 0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0)


def intersections(a: Array, b: Array) -> Array:
    """Return the intersection areas (M, K) of boxes a (M, 4) and b (K, 4), in square pixels."""
    a, b = _floating(a), _floating(b)
    width = np.minimum(a[:, None, 2], b[:, 2]) - np.maximum(a[:, None, 0], b[:, 0])
    height = np.minimum(a[:, None, 3], b[:, 3]) - np.maximum(a[:, None, 1], b[:, 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


def iou(a: Array, b: Array) -> Array:
    """Return intersection over union (M, K) of boxes a (M, 4) and b (K, 4); 0 for an empty box."""
    common = intersections(a, b)
    union = areas(a)[:, None] + areas(b) - common
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def centred_iou(a: Array, b: Array) -> Array:
    """Return intersection over union (M, K) of boxes of sizes a (M, 2) and b (K, 2) in pixels with equal centres."""
    a, b = _floating(a), _floating(b)
    common = np.minimum(a[:, None, 0], b[:, 0]) * np.minimum(a[:, None, 1], b[:, 1])
    union = a.prod(1)[:, None] + b.prod(1) - common
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


@dataclass(frozen=True)
class Letterbox:
    """An image (width, height) resized into an input (width, height): aspect ratio kept, borders of equal width.

    The resized image has `inner` (width, height) in whole pixels and begins at (pad_x, pad_y). As `inner` is rounded,
    each axis has its own factor for boxes, which differs from `scale` by at most half a pixel over the side.

    Raises:
        UsageError: when a side is not a whole number of at least 1.
    """

    image: Size
    target: Size

    def __post_init__(self) -> None:
        """Refuse sides below one pixel."""
        for name, size in (("the image's size", self.image), ("the input's size", self.target)):
            if len(size) != 2 or any(side < 1 or side != int(side) for side in size):
                raise UsageError(
                    expected=f"{name} as (width, height) in whole pixels >= 1",
                    received=repr(size),
                    do="pass both sides",
                )

    @property
    def scale(self) -> float:
        """Return the largest factor with which the image fits."""
        return min(self.target[0] / self.image[0], self.target[1] / self.image[1])

    @property
    def inner(self) -> Size:
        """Return the image's (width, height) inside the input, in whole pixels."""
        return max(1, round(self.image[0] * self.scale)), max(1, round(self.image[1] * self.scale))

    @property
    def pad_x(self) -> int:
        """Return the number of pixels to the left of the image."""
        return (self.target[0] - self.inner[0]) // 2

    @property
    def pad_y(self) -> int:
        """Return the number of pixels above the image."""
        return (self.target[1] - self.inner[1]) // 2

    @property
    def inside(self) -> Array:
        """Return the image's part of the input as x0, y0, x1, y1; the rest is border."""
        return self.to_input(np.array([[0, 0, *self.image]]))[0]

    def to_input(self, boxes: Array) -> Array:
        """Convert boxes (M, 4) from pixels of the image to float32 boxes in pixels of the input."""
        factors, pads = self._factors_and_pads()
        return (_rows(boxes) * factors + pads).astype(np.float32)

    def to_image(self, boxes: Array) -> Array:
        """Convert boxes (M, 4) from pixels of the input to float32 boxes in pixels of the image, cut at its border."""
        factors, pads = self._factors_and_pads()
        width, height = self.image
        return np.clip((_rows(boxes) - pads) / factors, 0, (width, height, width, height)).astype(np.float32)

    def _factors_and_pads(self) -> tuple[Array, Array]:
        factors = np.divide(self.inner, self.image)
        return np.tile(factors, 2), np.tile((self.pad_x, self.pad_y), 2)


def _floating(boxes: Array) -> Array:
    """Return boxes of whole numbers as float64, since their products may overflow."""
    return boxes if np.issubdtype(boxes.dtype, np.floating) else boxes.astype(np.float64)


def _rows(boxes: Array) -> Array:
    return np.asarray(boxes, np.float64).reshape(-1, 4)
