"""Draw detected boxes into an image."""

import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from foveate.gates.colour import CATEGORIES


def draw_boxes(
    pixels: NDArray[np.uint8], boxes: ArrayLike, labels: Sequence[int], words: Sequence[str]
) -> NDArray[np.uint8]:
    """Return a copy of an image, uint8 (H, W, 3), with boxes (M, 4), xyxy in pixels, each with its text of `words`.

    The label chooses the colour from a fixed list, again and again. Characters that the font lacks, such as Chinese
    ones, are escaped.
    """
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    side = min(image.size)
    line, font = max(1, round(side / 240)), ImageFont.truetype(_font(), max(10, side / 32))
    for (left, top, right, bottom), label, text in zip(np.asarray(boxes, float), labels, words, strict=True):
        colour = CATEGORIES[label % len(CATEGORIES)]
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        plain = writable(text)
        wide, high = draw.textbbox((0, 0), plain, font=font)[2:]
        corner = min(max(0, left), max(0, image.width - wide - 4)), top - high - 3 if top >= high + 3 else top
        draw.rectangle((*corner, corner[0] + wide + 4, corner[1] + high + 3), fill=colour)
        draw.text((corner[0] + 2, corner[1] + 1), plain, fill=(0, 0, 0), font=font)
    return np.asarray(image)


def _font() -> str:
    """Return Matplotlib's font, which has the letters of Europe; Pillow's has little more than ASCII."""
    return str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(_font()).get_charmap())


def writable(text: str) -> str:
    """Return a text with the characters that the font lacks escaped."""
    return "".join(
        c if c.isprintable() and ord(c) in _glyphs() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in unicodedata.normalize("NFC", text)
    )
