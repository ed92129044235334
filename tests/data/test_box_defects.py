"""Defective boxes and files: which are dropped, which are refused, and what the messages say."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.box_folders import (
    FORMATS,
    JSON,
    SIZE,
    TXT,
    XML,
    annotation,
    coco_content,
    picture,
    thing,
    write,
    yolo_line,
)
from foveate.data.boxes.box_folder import open_boxes
from foveate.errors import DataError

Change = Callable[[Any], Any]

BOXES: dict[str, tuple[tuple[float, float, float, float], str]] = {
    "empty": ((20, 20, 20, 40), "is empty"),
    "inverted": ((40, 20, 20, 40), "is inverted"),
    "outside": ((200, 20, 220, 40), "lies outside the 80 x 60 image"),
    "not a number": ((float("nan"), 20, 30, 40), "has a number that is not finite"),
    "endless": ((10, 20, float("inf"), 40), "has a number that is not finite"),
    "reaching out": ((60, 20, 100, 40), "reaches out of the 80 x 60 image, where it was cut"),
}


def put(root: Path, form: str, box: tuple[float, float, float, float]) -> str:
    """Add a box to the first image in the notation of the format; return the file of the box."""
    left, top, right, bottom = box
    if form == "VOC":
        shifted = (left + (left < right), top + 1, right, bottom)
        write(root / "Annotations" / "p0.xml", annotation(thing("cat", shifted), thing("cat", (2, 3, 9, 9))))
        return "Annotations/p0.xml"
    if form == "COCO":
        content = coco_content(0)
        content["annotations"] += [
            {"id": 9, "image_id": 100, "category_id": 3, "bbox": [left, top, right - left, bottom - top]}
        ]
        write(root / "annotations" / "instances_train2017.json", json.dumps(content))
        return "annotations/instances_train2017.json"
    sides = (
        (left + right) / 2 / SIZE[0],
        (top + bottom) / 2 / SIZE[1],
        (right - left) / SIZE[0],
        (bottom - top) / SIZE[1],
    )
    write(root / "labels" / "train" / "p0.txt", f"0 {' '.join(map(str, sides))}\n{yolo_line('cat', (2, 3, 9, 9))}")
    return "labels/train/p0.txt"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", BOXES)
@pytest.mark.reliability(12)
def test_a_defective_box_is_reported_and_dropped_or_refused(form: str, kind: str, tmp_path: Path):
    box, what = BOXES[kind]
    root = FORMATS[form](tmp_path)
    before = len(open_boxes(root).images["train"][0].boxes)
    file = put(root, form, box)
    folder = open_boxes(root)
    (defect,) = folder.defects
    assert defect.file == file
    assert what in defect.what or (form == "YOLO" and kind == "endless")
    assert any(str(defect) in note for note in folder.notes)
    (found,) = folder.images["train"]
    assert len(found.boxes) == (before if form == "COCO" else 1) + (kind == "reaching out")
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert found.boxes.max() <= 80
    with pytest.raises(DataError, match=file):
        open_boxes(root, on_defect="refuse")


# the change to a good folder, and the note on it; with "refuse" an error has the same words
DROPPED: dict[str, tuple[str, Change, str]] = {
    "image without xml": (
        "VOC",
        lambda root: picture(root / "JPEGImages" / "more.jpg", 9),
        "JPEGImages/more.jpg: has no file",
    ),
    "xml without image": (
        "VOC",
        lambda root: write(root / "Annotations" / "more.xml", annotation()),
        "Annotations/more.xml: has no image",
    ),
    "xml of another size": (
        "VOC",
        lambda root: write(root / "Annotations" / "p0.xml", annotation(thing("cat", (1, 1, 9, 9)), size=(60, 80))),
        "Annotations/p0.xml: says 60 x 80 pixels of JPEGImages/p0.jpg, the image has 80 x 60",
    ),
    "image without txt": (
        "YOLO",
        lambda root: picture(root / "images" / "val" / "more.png", 9),
        "images/val/more.png: has no label file",
    ),
    "txt without image": (
        "YOLO",
        lambda root: write(root / "labels" / "val" / "more.txt", ""),
        "labels/val/more.txt: has no image",
    ),
    "listed image missing": (
        "COCO",
        lambda root: edit(root, images=added(file_name="gone.png")),
        "the image gone.png is missing",
    ),
    "image of no name": ("COCO", lambda root: edit(root, images=added(file_name=None)), "an image has no file_name"),
    "boxes of no image": (
        "COCO",
        lambda root: edit(root, annotations=added(image_id=5)),
        "annotation 3 belongs to image 5",
    ),
    "object without name": (
        "VOC",
        lambda root: write(root / XML, annotation(thing(" ", (1, 2, 3, 4)), thing("cat", (1, 2, 30, 40)))),
        "left out: Annotations/p0.xml: object 1 has no usable name",
    ),
    "object without box": (
        "VOC",
        lambda root: write(root / XML, annotation("<object><name>cat</name></object>", thing("cat", (1, 2, 30, 40)))),
        "left out: Annotations/p0.xml: object 1 has no <bndbox> with xmin, ymin, xmax and ymax",
    ),
    "category outside": (
        "COCO",
        lambda root: edit(root, annotations=changed(category_id=99)),
        "annotation 1 has the category 99, which is not in the list of categories",
    ),
    "three sides": (
        "COCO",
        lambda root: edit(root, annotations=changed(bbox=[1, 2, 3])),
        "annotation 1 has neither a bbox of four numbers nor a polygon",
    ),
    "four numbers": (
        "YOLO",
        lambda root: write(root / TXT, f"0 .5 .5 .1\n{yolo_line('cat', (2, 3, 9, 9))}"),
        "line 1 has 4 values: neither a box of five nor an outline",
    ),
    "odd outline": (
        "YOLO",
        lambda root: write(root / TXT, f"0 .1 .1 .2 .2 .3 .3 .1\n{yolo_line('cat', (2, 3, 9, 9))}"),
        "line 1 has 8 values: neither a box of five nor an outline",
    ),
    "confidence": (
        "YOLO",
        lambda root: write(root / TXT, f"{yolo_line('cat', (2, 3, 9, 9))} 0.93"),
        "kept, but doubtful: labels/train/p0.txt: line 1 has a sixth value, 0.93 (a confidence, as of predictions?)",
    ),
    "track": (
        "YOLO",
        lambda root: write(root / TXT, f"{yolo_line('cat', (2, 3, 9, 9))} 17"),
        "kept, but doubtful: labels/train/p0.txt: line 1 has a sixth value, 17 (the number of a track?): ignored",
    ),
    "json of another size": (
        "COCO",
        lambda root: edit(root, images=changed(width=81)),
        "says 81 x 60 pixels of train2017/p0.png",
    ),
}


def added(**values: Any) -> Change:
    return lambda entries: entries.append({**entries[0], "id": 55, **values})


def changed(**values: Any) -> Change:
    return lambda entries: entries[0].update(values)


def without(key: str) -> Change:
    return lambda entries: entries[0].pop(key)


def edit(root: Path, **changes: Change) -> None:
    content = coco_content(0)
    for key, change in changes.items():
        change(content[key])
    write(root / "annotations" / "instances_train2017.json", json.dumps(content))


@pytest.mark.parametrize("what", DROPPED)
def test_missing_files_become_notes_or_are_refused(what: str, tmp_path: Path):
    form, change, message = DROPPED[what]
    root = FORMATS[form](tmp_path)
    open_boxes(root, on_defect="refuse")
    change(root)
    assert any(message in note for note in open_boxes(root).notes)
    with pytest.raises(DataError) as caught:
        open_boxes(root, on_defect="refuse")
    assert message in caught.value.received


LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><annotation>&c;</annotation>'


# the change to a good folder, the file that the error names, and the words of the error
REFUSED: dict[str, tuple[str, Change, str, str]] = {
    "no xml": ("VOC", lambda root: write(root / XML, "a text"), XML, "not plain XML"),
    "empty xml": ("VOC", lambda root: write(root / XML, ""), "", "none in train, which has 1 image"),
    "billion laughs": ("VOC", lambda root: write(root / XML, LAUGHS), XML, "not plain XML (DTDForbidden"),
    "outside entity": (
        "VOC",
        lambda root: write(
            root / XML, '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>'
        ),
        XML,
        "not plain XML (DTDForbidden",
    ),
    "huge xml": ("VOC", lambda root: write(root / XML, annotation() + " " * (5 << 20)), XML, "more than 4,096 KiB"),
    "another root": (
        "VOC",
        lambda root: write(root / XML, "<html/>"),
        XML,
        "<html> at the beginning, where VOC has <annotation>",
    ),
    "two images of one name": (
        "VOC",
        lambda root: picture(root / "JPEGImages" / "p0.png", 1),
        "JPEGImages",
        "p0.jpg and JPEGImages/p0.png",
    ),
    "unknown in a list": (
        "VOC",
        lambda root: write(root / "ImageSets/Main/val.txt", "p1\nq"),
        "ImageSets/Main/val.txt",
        "line 2 with 'q'",
    ),
    "twice in the lists": (
        "VOC",
        lambda root: write(root / "ImageSets/Main/val.txt", "p1\np0"),
        "ImageSets/Main",
        "p0 in train.txt and in",
    ),
    "trainval and val share one": (
        "VOC",
        lambda root: (
            (root / "ImageSets/Main/train.txt").rename(root / "ImageSets/Main/trainval.txt").write_text("p0\np1")
        ),
        "ImageSets/Main",
        "p1 in trainval.txt and in val.txt",
    ),
    "no boxes at all": (
        "VOC",
        lambda root: [write(path, annotation()) for path in (root / "Annotations").iterdir()],
        "",
        "none: every label file is empty",
    ),
    "no labels of the images": (
        "YOLO",
        lambda root: [path.rename(path.with_suffix(".text")) for path in root.glob("labels/*/*.txt")],
        "",
        "none at all; 3 defects, kept, but doubtful: images/test/p2.png",
    ),
    "no boxes in a split": ("VOC", lambda root: write(root / "Annotations/p2.xml", annotation()), "", "none in test"),
    "broken image": (
        "VOC",
        lambda root: write(root / "JPEGImages/p1.jpg", "text"),
        "JPEGImages/p1.jpg",
        "no known image format",
    ),
    "no json": ("COCO", lambda root: write(root / JSON, "{"), JSON, "not JSON"),
    "deep json": ("COCO", lambda root: write(root / JSON, "[" * 100_000), JSON, "not JSON (RecursionError"),
    "list as json": ("COCO", lambda root: write(root / JSON, "[]"), JSON, "a list instead of an object"),
    "no categories": (
        "COCO",
        lambda root: write(root / JSON, '{"images": [], "annotations": []}'),
        JSON,
        "no list called categories",
    ),
    "number as image": (
        "COCO",
        lambda root: write(root / JSON, '{"images": [3], "categories": [], "annotations": []}'),
        JSON,
        "a int as number 1",
    ),
    "image without id": (
        "COCO",
        lambda root: edit(root, images=without("id")),
        JSON,
        "image 1 without a whole number or a text as id",
    ),
    "two images of one id": (
        "COCO",
        lambda root: edit(root, images=lambda entries: entries.append(dict(entries[0]))),
        JSON,
        "two images with",
    ),
    "one image twice": ("COCO", lambda root: edit(root, images=added()), JSON, "the image train2017/p0.png once more"),
    "category twice": ("COCO", lambda root: edit(root, categories=added(id=55)), JSON, "'cat', twice"),
    "category of no name": (
        "COCO",
        lambda root: edit(root, categories=changed(name="")),
        JSON,
        "category 1 without a name",
    ),
    "two files a split": ("COCO", lambda root: write(root / "train.json", "{}"), "", "train.json"),
    "class outside": (
        "YOLO",
        lambda root: write(root / TXT, "0 .5 .5 .1 .1\n3 .5 .5 .1 .1"),
        TXT,
        "line 2 with class 3, outside the list of 0 to 2",
    ),
    "negative class": ("YOLO", lambda root: write(root / TXT, "-1 .5 .5 .1 .1"), TXT, "class -1"),
    "half a class": ("YOLO", lambda root: write(root / TXT, "0.5 .5 .5 .1 .1"), TXT, "class 0.5"),
    "words": (
        "YOLO",
        lambda root: write(root / TXT, "cat .5 .5 .1 .1"),
        TXT,
        "line 1 with class cat, outside the list of 0 to 2",
    ),
    "key points": (
        "YOLO",
        lambda root: write(root / "data.yaml", "kpt_shape: [1, 2]\nnames: [cat]"),
        "data.yaml",
        "are key points",
    ),
    "image twice": ("YOLO", lambda root: picture(root / "images/train/p0.bmp", 1), "images/train", "p0.bmp and p0.png"),
    "no names": (
        "YOLO",
        lambda root: write(root / "data.yaml", "nc: 3"),
        "data.yaml",
        "no list or mapping called names",
    ),
    "no yaml": (
        "YOLO",
        lambda root: write(root / "data.yaml", "names: ["),
        "data.yaml",
        "not plain YAML",
    ),
    "yaml aliases": (
        "YOLO",
        lambda root: write(root / "data.yaml", "a: &a [x, x]\nnames: [*a, *a]"),
        "data.yaml",
        "an alias",
    ),
    "deep yaml": (
        "YOLO",
        lambda root: write(root / "data.yaml", "names: " + "[" * 10_000),
        "data.yaml",
        "nested more than 16 deep",
    ),
    "yaml objects": (
        "YOLO",
        lambda root: write(root / "data.yaml", "names: !!python/object:os.system [x]"),
        "data.yaml",
        "not plain YAML",
    ),
    "name twice": (
        "YOLO",
        lambda root: write(root / "data.yaml", "names: [cat, dog, cat]"),
        "data.yaml",
        "class 'cat' twice",
    ),
    "gap in names": (
        "YOLO",
        lambda root: write(root / "data.yaml", "names: {0: cat, 2: dog}"),
        "data.yaml",
        "numbers are not 0, 1, 2",
    ),
    "lists as names": (
        "YOLO",
        lambda root: write(root / "data.yaml", "names: [[cat]]"),
        "data.yaml",
        "a name that is not text",
    ),
    "wrong count": (
        "YOLO",
        lambda root: write(root / "data.yaml", "nc: 4\nnames: [cat, ant, bee]"),
        "data.yaml",
        "another number as nc",
    ),
    "no list of names": ("YOLO", lambda root: (root / "data.yaml").unlink(), "data.yaml", "none of them"),
    "no train": ("YOLO", lambda root: shutil.rmtree(root / "images" / "train"), "", "only val, test"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.reliability(12)
def test_a_broken_file_is_refused_with_its_reason(what: str, tmp_path: Path):
    form, change, file, message = REFUSED[what]
    root = FORMATS[form](tmp_path)
    open_boxes(root)
    change(root)
    with pytest.raises(DataError) as caught:
        open_boxes(root)
    assert file in caught.value.expected
    assert message in caught.value.received
    assert "\n" not in caught.value.received
    assert len(caught.value.received) < 400
