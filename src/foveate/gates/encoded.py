"""Images and maps as text for a page: data URIs of photos, and maps of one byte for each cell in base64."""

import base64
import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_QUALITY = 80  # of JPEG
_LEVELS = 255


def photo(pixels: NDArray[np.uint8], most: int) -> str:
    """Return an image as a data URI, at most `most` pixels wide and high, as PNG or JPEG, whichever is smaller."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    png, jpeg = encoded(picture, "PNG", optimize=True), encoded(picture, "JPEG", quality=_QUALITY, optimize=True)
    return uri(png, "png") if len(png) <= len(jpeg) else uri(jpeg, "jpeg")


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Return the file of an image."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def uri(content: bytes, kind: str) -> str:
    """Return the file of an image as a data URI."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def shrunk(gate: NDArray, most: int) -> NDArray:
    """Average a large map (h, w) to at most `most` cells per side, in whole steps."""
    step = -(-max(gate.shape) // most)
    if step == 1:
        return gate
    rows, columns = (np.arange(0, side, step) for side in gate.shape)
    counts = np.outer(np.diff([*rows, gate.shape[0]]), np.diff([*columns, gate.shape[1]]))
    return np.add.reduceat(np.add.reduceat(gate, rows, 0), columns, 1) / counts


def packed(rows: Iterable[NDArray]) -> dict[str, Any]:
    """Return arrays of one shape as `data`: a byte for each value from `low` to `high`, in base64.

    Each array has `step` characters, so that one can be read without the others.
    """
    values = np.nan_to_num(np.stack([np.asarray(row, np.float64).ravel() for row in rows]), posinf=0, neginf=0)
    low, high = float(values.min()), float(values.max())
    levels = np.rint((values - low) * (_LEVELS / (high - low)) if high > low else values * 0).astype(np.uint8)
    levels = np.pad(levels, ((0, 0), (0, -levels.shape[1] % 3)))
    return {
        "low": _short(low),
        "high": _short(high),
        "step": levels.shape[1] // 3 * 4,
        "data": base64.b64encode(levels.tobytes()).decode("ascii"),
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")
