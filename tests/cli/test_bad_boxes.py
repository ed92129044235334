"""Errors for a defective folder of boxes: two lines that name the file, the fault and the fix."""

import json
from pathlib import Path

import pytest

from cli.conftest import Foveate
from data.box_folders import FORMATS, annotation, picture, thing, write
from data.test_box_defects import Change, added, edit

pytestmark = pytest.mark.usefixtures("opened_anew")

XML, JSON, TXT = "data/Annotations/p0.xml", "data/annotations/instances_train2017.json", "data/labels/train/p0.txt"


def emptied(*patterns: str) -> Change:
    """Return a change that removes every box from a folder's files."""

    def change(root: Path) -> None:
        for path in (path for pattern in patterns for path in root.glob(pattern)):
            text = {".xml": annotation(), ".txt": ""}.get(path.suffix)
            write(path, json.dumps({**json.loads(path.read_bytes()), "annotations": []}) if text is None else text)

    return change


# the format, the change to a good folder, and the two lines of the error
REFUSED: dict[str, tuple[str, Change, str, str]] = {
    "class outside the list, YOLO": (
        "YOLO",
        lambda root: write(root / "labels/train/p0.txt", "0 .5 .5 .1 .1\n3 .5 .5 .1 .1"),
        f"expected readable boxes in {TXT}; received line 2 with class 3, outside the list of 0 to 2",
        "correct the line, or the list of names: the first class is 0",
    ),
    "two images of one name, VOC": (
        "VOC",
        lambda root: picture(root / "JPEGImages/p0.png", 1),
        "expected one image of each name in data/JPEGImages; received JPEGImages/p0.jpg and JPEGImages/p0.png",
        "rename or remove one: labels are assigned to images by their names",
    ),
    "two images of one name, YOLO": (
        "YOLO",
        lambda root: picture(root / "images/train/p0.bmp", 1),
        "expected one image of each name in data/images/train; received p0.bmp and p0.png",
        "rename or remove one: labels are assigned to images by their names",
    ),
    "two images of one name, COCO": (
        "COCO",
        lambda root: edit(root, images=added()),
        f"expected readable boxes in {JSON}; "
        "received the image train2017/p0.png once more, after annotations/instances_train2017.json",
        "list every image once",
    ),
    **{
        f"no boxes in the whole set, {form}": (
            form,
            emptied("Annotations/*.xml", "annotations/*.json", "labels/*/*.txt"),
            "expected boxes in data, in each of train, val and test; received none: every label file is empty",
            "label objects in the images",
        )
        for form in FORMATS
    },
    "a box file that is not XML": (
        "VOC",
        lambda root: write(root / "Annotations/p0.xml", b"GIF89a an image"),
        f"expected readable boxes in {XML}; received content that is not plain XML "
        "(ParseError: syntax error: line 1, column 0)",
        "correct the file, or remove it together with its image",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_unusable_boxes_are_refused(what: str, tmp_path: Path, foveate: Foveate) -> None:
    form, change, error, fix = REFUSED[what]
    change(FORMATS[form](tmp_path / "data"))
    done = foveate("train", "data", "--task", "detect")
    assert (done.code, done.out, done.err) == (3, "", f"Error: {error}\nFix:   {fix}\n")
    assert not Path("runs").exists()


# the format, the change to a good folder, and the message, whether the defect is dropped or refused
DROPPED: dict[str, tuple[str, Change, str]] = {
    "class outside the list, COCO": (
        "COCO",
        lambda root: edit(root, annotations=added(category_id=99)),
        "annotations/instances_train2017.json: annotation 3 has the category 99, "
        "which is not in the list of categories",
    ),
    "image without its label file, VOC": (
        "VOC",
        lambda root: picture(root / "JPEGImages/more.jpg", 9),
        "JPEGImages/more.jpg: has no file in Annotations/",
    ),
    "image without its label file, YOLO": (
        "YOLO",
        lambda root: picture(root / "images/val/more.png", 9),
        "images/val/more.png: has no label file, so it is used as an image without objects",
    ),
    "label file without its image, VOC": (
        "VOC",
        lambda root: write(root / "Annotations/more.xml", annotation()),
        "Annotations/more.xml: has no image of its name or its <filename>",
    ),
    "label file without its image, YOLO": (
        "YOLO",
        lambda root: write(root / "labels/val/more.txt", ""),
        "labels/val/more.txt: has no image in images/val/",
    ),
    "listed image that is not there, COCO": (
        "COCO",
        lambda root: edit(root, images=added(file_name="gone.png")),
        "annotations/instances_train2017.json: the image gone.png is missing",
    ),
    "boxes of an image that is not listed, COCO": (
        "COCO",
        lambda root: edit(root, annotations=added(image_id=5)),
        "annotations/instances_train2017.json: annotation 3 belongs to image 5, which is not listed",
    ),
    "empty box": (
        "VOC",
        lambda root: write(
            root / "Annotations/p0.xml", annotation(thing("cat", (5, 5, 5, 9)), thing("cat", (2, 3, 9, 9)))
        ),
        "Annotations/p0.xml: object 1 (cat) is empty: 5, 4, 5, 9",
    ),
    "inverted box": (
        "COCO",
        lambda root: edit(root, annotations=added(bbox=[40, 20, -20, 20])),
        "annotations/instances_train2017.json: annotation 3 (cat) is inverted: 40, 20, 20, 40",
    ),
    "box outside": (
        "YOLO",
        lambda root: write(root / "labels/train/p0.txt", "0 2.5 .5 .1 .1\n0 .5 .5 .1 .1"),
        "labels/train/p0.txt: line 1 (cat) lies outside the 80 x 60 image: 196, 27, 204, 33",
    ),
    "box that is not a number": (
        "YOLO",
        lambda root: write(root / "labels/train/p0.txt", "0 nan .5 .1 .1\n0 .5 .5 .1 .1"),
        "labels/train/p0.txt: line 1 (cat) has a number that is not finite: nan, 27, nan, 33",
    ),
}


@pytest.mark.parametrize("what", DROPPED)
def test_defects_are_dropped_or_refused(what: str, tmp_path: Path, foveate: Foveate) -> None:
    form, change, message = DROPPED[what]
    group = "kept, but doubtful" if "used as an image without objects" in message else "left out"
    change(root := FORMATS[form](tmp_path / "data"))
    train = ("train", root, "--task", "detect")
    done = foveate(*train, "--on-defect", "refuse")
    assert done.code == 3
    assert done.err == (
        f"Error: expected boxes without a defect in {root}; received 1 defect, {group}: {message}\n"
        "Fix:   correct the files, or leave such boxes out: --on-defect drop\n"
    )
    err = foveate(*train, "--resume").err  # ends after the data are opened, as there is nothing to resume
    assert f"data: 1 defect, {group}: {message}\n" in err


def test_boxes_are_not_taken_for_classes(foveate: Foveate) -> None:
    outcome = foveate("train", FORMATS["YOLO"](Path("data")), "--model", "resnet8", "--imgsz", "32")
    assert (outcome.code, "for boxes, add --task detect" in outcome.err) == (3, True)
