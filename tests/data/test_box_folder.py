"""Each format read right, and each wrong input beside it: what is refused, what is dropped, and what is said."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.box_folders import CLASSES, FORMATS, SIZE, TRUTH, annotation, coco, coco_content, picture, thing, voc, write, yolo, yolo_line
from foveate.data.boxes.box_data import open_box_data
from foveate.data.boxes.box_folder import open_boxes
from foveate.data.splits import SPLITS, Split
from foveate.errors import DataError, FoveateError, UsageError

Change = Callable[[Any], Any]


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_gives_the_same_boxes(form: str, tmp_path: Path):
    folder = open_boxes(FORMATS[form](tmp_path), on_defect="refuse")
    assert folder.classes == CLASSES
    assert folder.layout.startswith(form)
    assert folder.defects == ()
    for split, truth in zip(SPLITS, TRUTH, strict=True):
        (found,) = folder.pictures[split]
        assert found.size == SIZE
        assert (folder.root / found.path).is_file()
        np.testing.assert_allclose(found.boxes, [box for _, box in truth], atol=1e-3)
        assert [CLASSES[label] for label in found.labels] == [name for name, _ in truth]
        assert (found.boxes.dtype, found.labels.dtype, found.crowd.dtype, found.difficult.dtype) == (np.float32, np.int64, bool, bool)
        assert not found.ignored.any()
    notes = " | ".join(folder.notes)
    assert "classes without a box in val: ant; cat" in notes


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_trains(form: str, tmp_path: Path):
    data = open_box_data(FORMATS[form](tmp_path), imgsz=64)
    assert data.split == Split.from_dict(data.split.to_dict()) if data.split else False
    assert [image.shape for split in SPLITS for image in (getattr(data, split)[0][0],)] == [(3, 64, 64)] * 3
    record = json.loads(json.dumps(data.describe()))
    assert record["counts"]["test"] == {"ant": 0, "bee": 0, "cat": 1}
    assert data.fingerprint != open_box_data(tmp_path, imgsz=96).fingerprint


def test_crowd_and_difficult_are_kept(tmp_path: Path):
    write(
        voc(tmp_path / "voc") / "Annotations" / "p0.xml",
        annotation(thing("cat", (1, 1, 9, 9), "<difficult>1</difficult>"), thing("cat", (1, 1, 8, 8))),
    )
    (found,) = open_boxes(tmp_path / "voc").pictures["train"]
    assert found.difficult.tolist() == found.ignored.tolist() == [True, False]
    content = coco_content(0)
    content["annotations"][1]["iscrowd"] = 1
    write(coco(tmp_path / "coco") / "annotations" / "instances_train2017.json", json.dumps(content))
    (found,) = open_boxes(tmp_path / "coco").pictures["train"]
    assert found.crowd.tolist() == found.ignored.tolist() == [False, True]


BOXES: dict[str, tuple[tuple[float, float, float, float], str]] = {
    "empty": ((20, 20, 20, 40), "is empty"),
    "inverted": ((40, 20, 20, 40), "is inverted"),
    "outside": ((200, 20, 220, 40), "lies outside the 80 x 60 image"),
    "not a number": ((float("nan"), 20, 30, 40), "is not of finite numbers"),
    "endless": ((10, 20, float("inf"), 40), "is not of finite numbers"),
    "reaching out": ((60, 20, 100, 40), "reaches out of the 80 x 60 image, where it was cut"),
}


def put(root: Path, form: str, box: tuple[float, float, float, float]) -> str:
    """Add a box to the first picture as its format writes it; return the file it is in."""
    left, top, right, bottom = box
    if form == "VOC":
        shifted = (left + (left < right), top + 1, right, bottom)
        write(root / "Annotations" / "p0.xml", annotation(thing("cat", shifted), thing("cat", (2, 3, 9, 9))))
        return "Annotations/p0.xml"
    if form == "COCO":
        content = coco_content(0)
        content["annotations"] += [{"id": 9, "image_id": 100, "category_id": 3, "bbox": [left, top, right - left, bottom - top]}]
        write(root / "annotations" / "instances_train2017.json", json.dumps(content))
        return "annotations/instances_train2017.json"
    sides = ((left + right) / 2 / SIZE[0], (top + bottom) / 2 / SIZE[1], (right - left) / SIZE[0], (bottom - top) / SIZE[1])
    write(root / "labels" / "train" / "p0.txt", f"0 {' '.join(map(str, sides))}\n{yolo_line('cat', (2, 3, 9, 9))}")
    return "labels/train/p0.txt"


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", BOXES)
def test_a_defective_box_is_told_of_and_dropped_or_refused(form: str, kind: str, tmp_path: Path):
    box, what = BOXES[kind]
    root = FORMATS[form](tmp_path)
    before = len(open_boxes(root).pictures["train"][0].boxes)
    file = put(root, form, box)
    folder = open_boxes(root)
    (defect,) = folder.defects
    assert defect.file == file
    assert what in defect.what or (form == "YOLO" and kind == "endless")
    assert any(str(defect) in note for note in folder.notes)
    (found,) = folder.pictures["train"]
    assert len(found.boxes) == (before if form == "COCO" else 1) + (kind == "reaching out")
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert found.boxes.max() <= 80
    with pytest.raises(DataError, match=file):
        open_boxes(root, on_defect="refuse")


def test_a_pixel_beyond_the_border_is_rounding(tmp_path: Path):
    root = yolo(tmp_path)
    write(root / "labels" / "train" / "p0.txt", "0 0.5 0.5 1.01 1.01")
    folder = open_boxes(root, on_defect="refuse")
    assert folder.pictures["train"][0].boxes.tolist() == [[0, 0, 80, 60]]


# what is done to a good folder, and what the notes then say; with "refuse" it is an error of the same words
DROPPED: dict[str, tuple[str, Change, str]] = {
    "image without xml": ("VOC", lambda root: picture(root / "JPEGImages" / "more.jpg", 9), "JPEGImages/more.jpg: has no file"),
    "xml without image": ("VOC", lambda root: write(root / "Annotations" / "more.xml", annotation()), "Annotations/more.xml: has no image"),
    "xml of another size": (
        "VOC",
        lambda root: write(root / "Annotations" / "p0.xml", annotation(thing("cat", (1, 1, 9, 9)), size=(60, 80))),
        "Annotations/p0.xml: says 60 x 80 pixels, the image has 80 x 60",
    ),
    "image without txt": ("YOLO", lambda root: picture(root / "images" / "val" / "more.png", 9), "images/val/more.png: has no label file"),
    "txt without image": ("YOLO", lambda root: write(root / "labels" / "val" / "more.txt", ""), "labels/val/more.txt: has no image"),
    "listed image missing": ("COCO", lambda root: edit(root, images=added(file_name="gone.png")), "the image gone.png is missing"),
    "boxes of no image": ("COCO", lambda root: edit(root, annotations=added(image_id=5)), "annotation 3 belongs to image 5"),
    "json of another size": ("COCO", lambda root: edit(root, images=changed(width=81)), "says 81 x 60 pixels of p0.png"),
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
def test_what_the_rest_can_do_without(what: str, tmp_path: Path):
    form, change, message = DROPPED[what]
    root = FORMATS[form](tmp_path)
    open_boxes(root, on_defect="refuse")
    change(root)
    assert any(message in note for note in open_boxes(root).notes)
    with pytest.raises(DataError) as caught:
        open_boxes(root, on_defect="refuse")
    assert message in caught.value.received


XML, JSON, TXT = "Annotations/p0.xml", "annotations/instances_train2017.json", "labels/train/p0.txt"
LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;&b;&b;">]><annotation>&c;</annotation>'
# what is done to a good folder, the file that the error names, and what it says
REFUSED: dict[str, tuple[str, Change, str, str]] = {
    "no xml": ("VOC", lambda root: write(root / XML, b"\xff\xd8 a jpeg"), XML, "no plain XML"),
    "empty xml": ("VOC", lambda root: write(root / XML, ""), XML, "an empty file"),
    "billion laughs": ("VOC", lambda root: write(root / XML, LAUGHS), XML, "no plain XML (DTDForbidden"),
    "outside entity": (
        "VOC",
        lambda root: write(root / XML, '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>'),
        XML,
        "no plain XML (DTDForbidden",
    ),
    "huge xml": ("VOC", lambda root: write(root / XML, annotation() + " " * (5 << 20)), XML, "more than 4,096 KiB"),
    "another root": ("VOC", lambda root: write(root / XML, "<html/>"), XML, "<html> where <annotation>"),
    "object without name": ("VOC", lambda root: write(root / XML, annotation(thing(" ", (1, 2, 3, 4)))), XML, "object 1 without a name"),
    "object without box": ("VOC", lambda root: write(root / XML, annotation("<object><name>cat</name></object>")), XML, "without <xmin>"),
    "two images of one name": ("VOC", lambda root: picture(root / "JPEGImages" / "p0.png", 1), "JPEGImages", "p0.jpg and p0.png"),
    "unknown in a list": ("VOC", lambda root: write(root / "ImageSets/Main/val.txt", "p1\nq"), "ImageSets/Main/val.txt", "in line 2 'q'"),
    "twice in the lists": (
        "VOC",
        lambda root: write(root / "ImageSets/Main/val.txt", "p1\np0"),
        "ImageSets/Main",
        "p0 in train.txt and in",
    ),
    "trainval and val share one": (
        "VOC",
        lambda root: (root / "ImageSets/Main/train.txt").rename(root / "ImageSets/Main/trainval.txt").write_text("p0\np1"),
        "ImageSets/Main",
        "p1 in trainval.txt and in val.txt",
    ),
    "no boxes at all": (
        "VOC",
        lambda root: [write(path, annotation()) for path in (root / "Annotations").iterdir()],
        "",
        "none at all",
    ),
    "no labels of the images": (
        "YOLO",
        lambda root: [path.rename(path.with_suffix(".text")) for path in root.glob("labels/*/*.txt")],
        "",
        "none at all; 3 defects, left out or cut: images/test/p2.png",
    ),
    "no boxes in a split": ("VOC", lambda root: write(root / "Annotations/p2.xml", annotation()), "", "none in test"),
    "broken image": ("VOC", lambda root: write(root / "JPEGImages/p1.jpg", "text"), "JPEGImages/p1.jpg", "no known image format"),
    "no json": ("COCO", lambda root: write(root / JSON, "{"), JSON, "no JSON"),
    "deep json": ("COCO", lambda root: write(root / JSON, "[" * 100_000), JSON, "no JSON (RecursionError"),
    "list as json": ("COCO", lambda root: write(root / JSON, "[]"), JSON, "a list instead of an object"),
    "no categories": ("COCO", lambda root: write(root / JSON, '{"images": [], "annotations": []}'), JSON, "no list called categories"),
    "number as image": (
        "COCO",
        lambda root: write(root / JSON, '{"images": [3], "categories": [], "annotations": []}'),
        JSON,
        "a int as number 1",
    ),
    "image without id": ("COCO", lambda root: edit(root, images=without("id")), JSON, "image 1 without a whole number as id"),
    "two images of one id": (
        "COCO",
        lambda root: edit(root, images=lambda entries: entries.append(dict(entries[0]))),
        JSON,
        "two images with",
    ),
    "one image twice": ("COCO", lambda root: edit(root, images=added()), JSON, "the image train2017/p0.png once more"),
    "image outside": (
        "COCO",
        lambda root: edit(root, images=changed(file_name="../p0.png")),
        JSON,
        "without a file_name inside the folder",
    ),
    "image of no name": ("COCO", lambda root: edit(root, images=without("file_name")), JSON, "without a file_name"),
    "category outside": ("COCO", lambda root: edit(root, annotations=changed(category_id=99)), JSON, "in annotation 1 category 99"),
    "category twice": ("COCO", lambda root: edit(root, categories=added(id=55)), JSON, "'cat', twice"),
    "category of no name": ("COCO", lambda root: edit(root, categories=changed(name="")), JSON, "category 1 without a name"),
    "three sides": ("COCO", lambda root: edit(root, annotations=changed(bbox=[1, 2, 3])), JSON, "annotation 1 without a bbox of four"),
    "two files a split": ("COCO", lambda root: write(root / "train.json", "{}"), "", "train.json"),
    "class outside": (
        "YOLO",
        lambda root: write(root / TXT, "0 .5 .5 .1 .1\n3 .5 .5 .1 .1"),
        TXT,
        "in line 2 class 3, outside the list of 0 to 2",
    ),
    "negative class": ("YOLO", lambda root: write(root / TXT, "-1 .5 .5 .1 .1"), TXT, "class -1"),
    "half a class": ("YOLO", lambda root: write(root / TXT, "0.5 .5 .5 .1 .1"), TXT, "class 0.5"),
    "four numbers": ("YOLO", lambda root: write(root / TXT, "0 .5 .5 .1"), TXT, "in line 1 no five numbers"),
    "words": ("YOLO", lambda root: write(root / TXT, "cat .5 .5 .1 .1"), TXT, "in line 1 class cat, outside the list of 0 to 2"),
    "odd outline": ("YOLO", lambda root: write(root / TXT, "0 .1 .1 .2 .2 .3 .3 .1"), TXT, "8 values: neither a box nor an outline"),
    "key points": ("YOLO", lambda root: write(root / "data.yaml", "kpt_shape: [1, 2]\nnames: [cat]"), "data.yaml", "are key points"),
    "image twice": ("YOLO", lambda root: picture(root / "images/train/p0.bmp", 1), "images/train", "p0.bmp and p0.png"),
    "no names": ("YOLO", lambda root: write(root / "data.yaml", "nc: 3"), "data.yaml", "no list or mapping called names"),
    "no yaml": ("YOLO", lambda root: write(root / "data.yaml", "names: ["), "data.yaml", "no plain YAML"),
    "yaml aliases": ("YOLO", lambda root: write(root / "data.yaml", "a: &a [x, x]\nnames: [*a, *a]"), "data.yaml", "an alias"),
    "deep yaml": ("YOLO", lambda root: write(root / "data.yaml", "names: " + "[" * 10_000), "data.yaml", "nested more than 16 deep"),
    "yaml objects": ("YOLO", lambda root: write(root / "data.yaml", "names: !!python/object:os.system [x]"), "data.yaml", "no plain YAML"),
    "name twice": ("YOLO", lambda root: write(root / "data.yaml", "names: [cat, dog, cat]"), "data.yaml", "the class 'cat' twice"),
    "gap in names": ("YOLO", lambda root: write(root / "data.yaml", "names: {0: cat, 2: dog}"), "data.yaml", "numbers are not 0, 1, 2"),
    "lists as names": ("YOLO", lambda root: write(root / "data.yaml", "names: [[cat]]"), "data.yaml", "a name that is no text"),
    "wrong count": ("YOLO", lambda root: write(root / "data.yaml", "nc: 4\nnames: [cat, ant, bee]"), "data.yaml", "not its nc"),
    "no list of names": ("YOLO", lambda root: (root / "data.yaml").unlink(), "data.yaml", "neither"),
    "no pictures in a split": (
        "YOLO",
        lambda root: [path.unlink() for path in (root / "images/test/p2.png", root / "labels/test/p2.txt")],
        "",
        "none in test",
    ),
    "no train": ("YOLO", lambda root: shutil.rmtree(root / "images" / "train"), "", "only val, test"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_and_why(what: str, tmp_path: Path):
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


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda root: None, "an empty folder"),
        (lambda root: picture(root / "cat" / "1.png", 1), "cat"),
        (lambda root: picture(root / "JPEGImages" / "1.png", 1), "JPEGImages"),
    ],
)
def test_a_folder_of_no_format_is_told_what_was_looked_for(make: Change, received: str, tmp_path: Path):
    make(tmp_path)
    with pytest.raises(DataError, match=r"\(VOC\).*\(COCO\).*\(YOLO\)") as caught:
        open_boxes(tmp_path)
    assert caught.value.received == received


@pytest.mark.parametrize("path", ["none", "file"])
def test_what_is_no_folder(path: str, tmp_path: Path):
    write(tmp_path / "file", "x")
    with pytest.raises(DataError, match="a folder of pictures with boxes at"):
        open_boxes(tmp_path / path)


def test_the_switch_takes_two_words(tmp_path: Path):
    with pytest.raises(UsageError, match="'drop', 'refuse'"):
        open_boxes(voc(tmp_path), on_defect="fix")


def test_other_layouts(tmp_path: Path):
    """Roboflow's folders, one json for everything, one list of names, and no splits at all."""
    for k, split in enumerate(("train", "valid", "test")):
        picture(tmp_path / "a" / split / "images" / f"p{k}.png", 9)
        write(tmp_path / "a" / split / "labels" / f"p{k}.txt", "0 .5 .5 .2 .2")
        picture(tmp_path / "b" / split / f"p{k}.png", 9)
        write(tmp_path / "b" / split / "_annotations.coco.json", json.dumps(coco_content(k)))
    write(tmp_path / "a" / "data.yaml", "names:\n  0: one\n  1: two\n")
    assert open_boxes(tmp_path / "a").classes == ("one", "two")
    assert [picture.path for part in open_boxes(tmp_path / "b").pictures.values() for picture in part] == [
        "train/p0.png",
        "valid/p1.png",
        "test/p2.png",
    ]
    for k in range(10):
        picture(tmp_path / "c" / "images" / f"p{k}.png", 9 * k)
        write(tmp_path / "c" / "labels" / f"p{k}.txt", "1 .5 .5 .2 .2")
    write(tmp_path / "c" / "classes.txt", "zebra\napple\n")
    folder = open_boxes(tmp_path / "c", seed=3)
    assert folder.classes == ("apple", "zebra")
    assert [len(folder.pictures[split]) for split in SPLITS] == [6, 2, 2]
    assert folder.pictures["train"][0].labels.tolist() == [0]
    assert folder.split == open_boxes(tmp_path / "c", seed=3).split != open_boxes(tmp_path / "c", seed=4).split
    assert folder.split == Split.from_dict(json.loads(json.dumps(folder.split.to_dict())))


BOM = b"\xef\xbb\xbf"  # which Windows puts before text
TEXTS = {
    "VOC": ["ImageSets/Main/train.txt", "ImageSets/Main/val.txt", XML],
    "COCO": [JSON],
    "YOLO": [TXT, "labels/val/p1.txt", "data.yaml", "labels/classes.txt", "classes.txt"],
}


@pytest.mark.parametrize(("form", "file"), [(form, file) for form, files in TEXTS.items() for file in files])
def test_a_byte_order_mark_changes_nothing(form: str, file: str, tmp_path: Path):
    root = FORMATS[form](tmp_path)
    if Path(file).name == "classes.txt":
        (root / "data.yaml").unlink()
        write(root / file, "\n".join(("cat", "ant", "bee")))
    before = open_boxes(root)
    write(root / file, BOM + (root / file).read_bytes())
    after = open_boxes(root)
    assert after.classes == before.classes == CLASSES
    assert after.fingerprint() == before.fingerprint()
    assert after.defects == ()


def test_a_label_file_of_a_byte_order_mark_alone_has_no_objects(tmp_path: Path):
    write(yolo(tmp_path) / "labels" / "train" / "p0.txt", BOM + yolo_line(*TRUTH[0][0]).encode())
    picture(tmp_path / "images" / "train" / "p9.png", 9)
    write(tmp_path / "labels" / "train" / "p9.txt", BOM)
    assert [len(one.labels) for one in open_boxes(tmp_path, on_defect="refuse").pictures["train"]] == [1, 0]


def test_a_missing_val_is_cut_from_train(tmp_path: Path):
    for k in range(20):
        picture(tmp_path / "JPEGImages" / f"p{k}.jpg", 9 * k)
        write(tmp_path / "Annotations" / f"p{k}.xml", annotation(thing("cat", (1, 1, 9, 9))))
    write(tmp_path / "ImageSets" / "Main" / "trainval.txt", "\n".join(f"p{k} 1" for k in range(14)))
    write(tmp_path / "ImageSets" / "Main" / "test.txt", "\n".join(f"p{k} -1" for k in range(14, 18)))
    folder = open_boxes(tmp_path)
    assert [len(folder.pictures[split]) for split in SPLITS] == [12, 2, 4]
    assert "test is kept for the final report" in folder.layout
    assert "pictures that no list in ImageSets/Main names, left out: 2" in folder.notes


def test_a_split_that_is_measured_stands_alone(tmp_path: Path):
    data = open_box_data(FORMATS["COCO"](tmp_path), imgsz=64, measured="test")
    assert [len(part) for part in (data.train, data.val, data.test)] == [0, 0, 1]
    record = data.describe()
    assert (record["anchors"], record["layout"], record["counts"]["test"]["cat"]) == (None, "COCO; test alone", 1)
    with pytest.raises(DataError, match="training boxes"):
        _ = data.anchors


def test_the_same_picture_in_two_splits_is_told(tmp_path: Path):
    root = voc(tmp_path)
    shutil.copy(root / "JPEGImages" / "p0.jpg", root / "JPEGImages" / "p2.jpg")
    assert any("more than one split" in note for note in open_boxes(root).notes)


def test_without_defusedxml_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "defusedxml.ElementTree", None)
    with pytest.raises(FoveateError, match=r'pip install "foveate\[detect\]"'):
        open_boxes(voc(tmp_path))
