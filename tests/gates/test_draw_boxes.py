"""The text beside the boxes on an image is readable, whatever the classes are called."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from foveate.gates import draw_boxes as drawing
from foveate.gates.draw_boxes import draw_boxes

TOFU = "\uffff"  # a character that no font has


def label(text: str) -> bytes:
    return draw_boxes(np.full((120, 400, 3), 255, np.uint8), [[10, 60, 390, 110]], [0], [text]).tobytes()


@pytest.mark.parametrize("text", ["áčñöøßıŁ", "αβγΩώ", "жёйЩї", "“–…€°"])
def test_the_letters_of_europe_are_drawn_as_themselves(text: str) -> None:
    font = ImageFont.truetype(drawing._font(), 20)

    def shape(letter: str) -> bytes:
        image = Image.new("L", (40, 40))
        ImageDraw.Draw(image).text((5, 5), letter, fill=255, font=font)
        return image.tobytes()

    assert len({shape(letter) for letter in (*text, TOFU)}) == len(text) + 1, (
        "a letter that the font lacks has the shape of any other"
    )
    assert len({label(letter) for letter in text}) == len(text)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("苹果 0.66", r"\u82f9\u679c 0.66"),
        ("a\tb\n", r"a\tb\n"),
        ("caf\udce9", r"caf\udce9"),
        ("e\u0301", "\u00e9"),
        ("\U0001f98a", r"\U0001f98a"),
    ],
)
def test_characters_that_the_font_lacks_are_escaped(text: str, read: str) -> None:
    assert label(text) == label(read)
