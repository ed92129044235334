"""Lay a map of a gate over an image, in the colours of every gate; arrays only."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveate.gates.colour import palette, place

LEVELS = 255
FADE = 0.6


def overlay(pixels: NDArray[np.uint8], gate: NDArray, fade: float = FADE) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) under a map (h, w) of a gate; `fade` is the share of the map, 0 to 1.

    Grey is a gate of 1, blue below, red above, on one scale for every gate (`foveate.gates.colour`).
    """
    return _blend(pixels, colours(gate), fade)


def heat(pixels: NDArray[np.uint8], values: NDArray, fade: float = FADE) -> NDArray[np.uint8]:
    """Return an image under a map (h, w) of at least 0, such as Grad-CAM: grey for 0, red for its greatest value."""
    greatest = float(values.max()) if values.size else 0.0
    return _blend(pixels, colours(1 + values / greatest if greatest > 0 else np.ones_like(values)), fade)


def colours(gate: NDArray) -> NDArray[np.uint8]:
    """Return the colours (..., 3) of a gate's values."""
    return palette(LEVELS)[(place(gate) * (LEVELS - 1)).round().astype(int)]


def _blend(pixels: NDArray[np.uint8], veil: NDArray[np.uint8], fade: float) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    spread = np.asarray(Image.fromarray(veil).resize((width, height), Image.Resampling.BILINEAR), float)
    return ((1 - fade) * pixels + fade * spread).round().astype(np.uint8)
