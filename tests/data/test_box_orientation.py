"""Boxes of images with an EXIF orientation lie on their objects, whichever pixels they were drawn on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.box_folders import annotation, thing, write
from foveate.data.boxes.box_folder import BoxFolder, open_boxes
from foveate.data.images.decode import read_image
from foveate.data.splits import SPLITS

STORED = (96, 64)
FORMATS = ("VOC", "COCO")
Box = tuple[int, int, int, int]


def write_image(path: Path, k: int, orientation: int, size: tuple[int, int] = STORED) -> Box:
    """Write a dark image with one bright object; return the box of the object in the pixels as stored."""
    rng = np.random.default_rng(k)
    pixels = rng.integers(0, 60, (size[1], size[0], 3), np.uint8)
    left, top = int(rng.integers(2, size[0] - 30)), int(rng.integers(2, size[1] - 20))
    box = left, top, left + 24, top + 15
    pixels[box[1] : box[3], box[0] : box[2]] = 250
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95, exif=exif)
    return box


def lay(root: Path, form: str, orientation: int, said: tuple[int, int] | None = STORED, size: tuple[int, int] = STORED):
    """Lay out four images with boxes drawn on the pixels as stored, in annotations that say a size."""
    images, annotations = [], []
    for k in range(4):
        name = f"p{k}.jpg"
        box = write_image(root / ("JPEGImages" if form == "VOC" else "images") / name, k, orientation, size)
        left, top, right, bottom = box
        if form == "VOC":
            one_based = thing("cat", (left + 1, top + 1, right, bottom))
            write(root / "Annotations" / f"p{k}.xml", annotation(one_based, size=said or (0, 0)))
        elif form == "COCO":
            images.append({"id": k, "file_name": name} | ({"width": said[0], "height": said[1]} if said else {}))
            bbox = [left, top, right - left, bottom - top]
            annotations.append({"id": k, "image_id": k, "category_id": 1, "bbox": bbox})
        else:
            sides = (left + right) / 2 / 96, (top + bottom) / 2 / 64, (right - left) / 96, (bottom - top) / 64
            write(root / "labels" / f"p{k}.txt", f"0 {' '.join(map(str, sides))}")
    if form == "COCO":
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
        write(root / "annotations" / "instances_default.json", json.dumps(content))
    if form == "YOLO":
        write(root / "data.yaml", "names: [cat]")


def covered(folder: BoxFolder) -> list[float]:
    """Return for each image the IoU of its box with its object, in the image as displayed."""
    found = []
    for picture in (one for split in SPLITS for one in folder.images[split]):
        bright = read_image(folder.root / picture.path).min(axis=2) > 150
        inside = np.zeros_like(bright)
        for left, top, right, bottom in picture.boxes.round().astype(int):
            inside[top:bottom, left:right] = True
        found.append(float((bright & inside).sum() / (bright | inside).sum()))
    return found


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_that_were_drawn_on_the_stored_pixels_are_rotated(form: str, orientation: int, tmp_path: Path) -> None:
    lay(tmp_path, form, orientation)
    folder = open_boxes(tmp_path, on_defect="refuse")
    assert min(covered(folder)) > 0.9
    assert "images whose boxes were drawn on the stored pixels, now rotated with the image: 4" in folder.notes


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_a_half_turn_follows_the_other_images_of_the_set(orientation: int, tmp_path: Path) -> None:
    """Neither a half turn nor a mirror swaps the sides, so the size does not tell; another image of the set does."""
    lay(tmp_path, "VOC", orientation)
    assert min(covered(open_boxes(tmp_path))) < 0.5
    (note,) = [note for note in open_boxes(tmp_path).notes if "do not say" in note]
    assert ": 4; the boxes are used on the image as displayed; check some of them: JPEGImages/p0.jpg" in note
    box = write_image(tmp_path / "JPEGImages" / "more.jpg", 9, 6)
    write(
        tmp_path / "Annotations" / "more.xml",
        annotation(thing("cat", (box[0] + 1, box[1] + 1, *box[2:])), size=STORED),
    )
    folder = open_boxes(tmp_path, on_defect="refuse")
    assert len(covered(folder)) == 5
    assert min(covered(folder)) > 0.9
    assert any(": 4; the boxes are rotated like the others" in note for note in folder.notes)


@pytest.mark.parametrize("form", FORMATS)
def test_boxes_that_were_drawn_on_the_image_as_displayed_stay(form: str, tmp_path: Path) -> None:
    lay(tmp_path, form, 6, said=(64, 96))  # the boxes are of the stored pixels, so they do not fit
    folder = open_boxes(tmp_path)
    assert max(covered(folder)) < 0.5
    assert not any("EXIF" in note for note in folder.notes)


@pytest.mark.parametrize(
    ("form", "said", "size"), [("VOC", (64, 64), (64, 64)), ("COCO", None, STORED), ("YOLO", None, STORED)]
)
def test_an_annotation_that_does_not_tell_is_noted(
    form: str, said: tuple[int, int] | None, size: tuple[int, int], tmp_path: Path
) -> None:
    lay(tmp_path, form, 6, said, size)
    assert any(
        "do not say whether boxes are on the stored pixels: 4; the boxes are used" in note
        for note in open_boxes(tmp_path).notes
    )


def test_a_size_that_is_swapped_without_a_turn_is_doubtful(tmp_path: Path) -> None:
    lay(tmp_path, "VOC", 1, said=(64, 96))
    folder = open_boxes(tmp_path)
    assert min(covered(folder)) > 0.9
    assert any(note.startswith("4 defects, kept, but doubtful") for note in folder.notes)
