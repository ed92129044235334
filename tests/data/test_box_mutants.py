"""RELIABILITY row 12: damaged box files are read or raise DataError with their name.

The work is in proportion to their length, within 512 MB.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.box_folders import FORMATS, yolo_named
from data.test_mutants import mutant, peak
from foveate.data.boxes.box_folder import BoxFolder, open_boxes
from foveate.errors import DataError
from work import counted

LAYOUTS = {**FORMATS, "YOLO, named": yolo_named}
DAMAGED = {
    "VOC": ["Annotations/p0.xml", "Annotations/p0.xml", "Annotations/p1.xml", "ImageSets/Main/val.txt"],
    "COCO": [
        "annotations/instances_train2017.json",
        "annotations/instances_train2017.json",
        "annotations/instances_test2017.json",
    ],
    "YOLO": ["labels/train/p0.txt", "labels/test/p2.txt", "data.yaml", "data.yaml"],
    "YOLO, named": ["labels/part0/p0.txt", "train.txt", "test.txt", "data.yaml"],
}
# replacements for a value: all are JSON, and most of them aim at one of the parsers
VALUES = re.split(
    " +",
    r'NaN Infinity -1 0 1 3 10 100 0.5 2.5 -0.0 1e999 -1e-320 2147483648 true null "" "cat" "x" "\ud800" "../p0.png" '
    "[] {} [1,2] [1,2,3,4] [0,0,1e308,1e308] [[4]] cat bee dog",
)
MARKUP = re.split(
    " +",
    "nan 1_0 [ ] { } , : ' \" # | > ~ ? - --- &a *a <<: !!binary !!python/name:os.system 2001-01-01 1:30:00 &lt; &lol; "
    "&#0; &#x110000; "
    "<!-- <![CDATA[ <!DOCTYPE[<!ENTITY]> é ../ /etc/passwd p0 p9 bbox name images",
)
MONSTERS = [
    "9" * 5000,
    "0x" + "f" * 5000,
    "1" + "0" * 400,
    "x" * 5000,
    "[" * 20_000,
    "{a: " * 2000,
    "<a>" * 20_000,
    "- " * 5000,
]
CONTROLS = [
    "\n",
    "\n\n",
    " ",
    "\t",
    "\ud800",
    "\x00",
    "\x1b[2J",
    "\u202e",
    "\ufeff",
    "<?xml version='1.0' encoding='utf-7'?>",
]
# the text of an element, the value of a name, a number or name in a list, a number at the end
VALUE = r"(?<=>)[^<>]+(?=<)|(?<=: )[^,\[\]{}\s]+|(?<=[\s\[])[\w.-]+(?=[\s,\]])|\b[\d.]+$"
CALLS, CALLS_A_BYTE = 50_000, 100  # allowed calls: for the folder, and for each byte of the damaged file
WORDS = [VALUES, VALUES, MARKUP, [*MONSTERS, *CONTROLS]]


@pytest.mark.parametrize("form", LAYOUTS)
@pytest.mark.reliability(12)
def test_800_mutants_among_the_formats(form: str, tmp_path: Path, tried: Any):
    read, refused = survive(form, tmp_path, 200, seed=0)
    assert read > 10, "the mutations leave hardly anything readable, so they test little"
    assert refused > 28, "the mutations damage hardly anything, so they test little"
    tried(read + refused)


@pytest.mark.slow
@pytest.mark.parametrize("form", LAYOUTS)
@pytest.mark.reliability(12)
def test_20000_mutants_among_the_formats(form: str, tmp_path: Path, tried: Any):
    tried(sum(survive(form, tmp_path, 5250, seed=1)))


def survive(form: str, root: Path, count: int, seed: int) -> tuple[int, int]:
    """Open the folder with one damaged file, `count` times; return how often it was read and refused."""
    rng = np.random.default_rng(seed)
    LAYOUTS[form](root)
    whole = {file: (root / file).read_bytes() for file in DAMAGED[form]}
    open_boxes(root)  # late imports, such as Pillow's readers, are not work on a damaged file
    before, read = peak(), 0
    for _ in range(count):
        file = DAMAGED[form][rng.integers(len(DAMAGED[form]))]
        damaged = (
            mutant(rng, [whole[file]]) if len(whole[file]) > 100 and rng.random() < 0.3 else reworded(rng, whole[file])
        )
        (root / file).write_bytes(damaged)
        with counted() as work:
            try:
                check(open_boxes(root))
                read += 1
            except DataError as error:
                assert str(root) in error.expected, damaged  # noqa: PT017 - a loop over thousands, where most may do either
                assert error.received.isprintable(), damaged  # noqa: PT017
                assert len(str(error)) < 2000, damaged  # noqa: PT017
            except Exception as error:
                error.add_note(f"this {file} did it: {damaged[:2000]!r}")
                raise
        assert work.calls <= CALLS + CALLS_A_BYTE * len(damaged), damaged
        (root / file).write_bytes(whole[file])
    assert peak() - before <= 512 << 10
    return read, count - read


def check(folder: BoxFolder) -> None:
    """Check that the boxes that were read are valid."""
    for part in folder.images.values():
        for picture in part:
            assert np.isfinite(picture.boxes).all()
            assert (picture.boxes[:, 2:] > picture.boxes[:, :2]).all()
            assert picture.boxes.min(initial=0) >= 0
            assert (picture.boxes.max(axis=0, initial=0) <= [80, 60, 80, 60]).all()
            assert picture.labels.max(initial=0) < len(folder.classes)
            assert len(picture.boxes) == len(picture.labels) == len(picture.crowd) == len(picture.difficult)
    assert all(text.isprintable() and len(text) < 5000 for text in (*folder.notes, *folder.classes))


def reworded(rng: np.random.Generator, content: bytes) -> bytes:
    """Put unusual words into a text: anywhere, or in the place of a number or a name."""
    text = content.decode("utf-8", "replace")
    for _ in range(rng.integers(1, 3)):
        words = WORDS[rng.integers(len(WORDS))]
        word = words[rng.integers(len(words))]
        tokens = [match.span() for match in re.finditer(VALUE, text)]
        at = int(rng.integers(len(text) + 1))
        start, end = (
            tokens[rng.integers(len(tokens))] if tokens and rng.random() < 0.8 else (at, at + int(rng.integers(6)))
        )
        text = text[:start] + word + text[end:]
    return text.encode("utf-8", "surrogatepass")
