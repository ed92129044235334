"""A picture with the boxes that were found in it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from foveate.explain.colour import CATEGORIES


def draw_boxes(picture: NDArray[np.uint8], boxes: ArrayLike, labels: Sequence[int], words: Sequence[str]) -> NDArray[np.uint8]:
    """Return a copy of a picture, uint8 (H, W, 3), with boxes (M, 4), xyxy in pixels, coloured by label, in turn, and named by `words`."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    side = min(image.size)
    line, font = max(1, round(side / 240)), ImageFont.load_default(max(10, side / 32))
    for (left, top, right, bottom), label, text in zip(np.asarray(boxes, float), labels, words, strict=True):
        colour = CATEGORIES[label % len(CATEGORIES)]
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=line)
        plain = text.encode("latin-1", "replace").decode("latin-1")  # what the built-in font has
        wide, high = draw.textbbox((0, 0), plain, font=font)[2:]
        corner = min(max(0, left), max(0, image.width - wide - 4)), top - high - 3 if top >= high + 3 else top
        draw.rectangle((*corner, corner[0] + wide + 4, corner[1] + high + 3), fill=colour)
        draw.text((corner[0] + 2, corner[1] + 1), plain, fill=(0, 0, 0), font=font)
    return np.asarray(image)
