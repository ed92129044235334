"""Every format is read correctly, and each wrong input is refused or dropped with a message."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.box_folders import (
    CLASSES,
    FORMATS,
    JSON,
    SIZE,
    TRUTH,
    TXT,
    XML,
    annotation,
    coco,
    coco_content,
    picture,
    thing,
    voc,
    write,
    yolo,
    yolo_line,
)
from foveate.data.boxes.box_data import open_box_data
from foveate.data.boxes.box_folder import open_boxes
from foveate.data.splits import SPLITS, Split
from foveate.errors import DataError, FoveateError, UsageError


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_gives_the_same_boxes(form: str, tmp_path: Path):
    folder = open_boxes(FORMATS[form](tmp_path), on_defect="refuse")
    assert folder.classes == CLASSES
    assert folder.layout.startswith(form)
    assert folder.defects == ()
    for split, truth in zip(SPLITS, TRUTH, strict=True):
        (found,) = folder.images[split]
        assert found.size == SIZE
        assert (folder.root / found.path).is_file()
        np.testing.assert_allclose(found.boxes, [box for _, box in truth], atol=1e-3)
        assert [CLASSES[label] for label in found.labels] == [name for name, _ in truth]
        assert (found.boxes.dtype, found.labels.dtype, found.crowd.dtype, found.difficult.dtype) == (
            np.float32,
            np.int64,
            bool,
            bool,
        )
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
    (found,) = open_boxes(tmp_path / "voc").images["train"]
    assert found.difficult.tolist() == found.ignored.tolist() == [True, False]
    content = coco_content(0)
    content["annotations"][1]["iscrowd"] = 1
    write(coco(tmp_path / "coco") / "annotations" / "instances_train2017.json", json.dumps(content))
    (found,) = open_boxes(tmp_path / "coco").images["train"]
    assert found.crowd.tolist() == found.ignored.tolist() == [False, True]


def test_other_layouts(tmp_path: Path):
    """Roboflow's folders, one JSON file for everything, one list of names, and no splits at all."""
    for k, split in enumerate(("train", "valid", "test")):
        picture(tmp_path / "a" / split / "images" / f"p{k}.png", 9)
        write(tmp_path / "a" / split / "labels" / f"p{k}.txt", "0 .5 .5 .2 .2")
        picture(tmp_path / "b" / split / f"p{k}.png", 9)
        write(tmp_path / "b" / split / "_annotations.coco.json", json.dumps(coco_content(k)))
    write(tmp_path / "a" / "data.yaml", "names:\n  0: one\n  1: two\n")
    assert open_boxes(tmp_path / "a").classes == ("one", "two")
    assert [picture.path for part in open_boxes(tmp_path / "b").images.values() for picture in part] == [
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
    assert [len(folder.images[split]) for split in SPLITS] == [6, 2, 2]
    assert folder.images["train"][0].labels.tolist() == [0]
    assert folder.split == open_boxes(tmp_path / "c", seed=3).split != open_boxes(tmp_path / "c", seed=4).split
    assert folder.split == Split.from_dict(json.loads(json.dumps(folder.split.to_dict())))


BOM = b"\xef\xbb\xbf"  # Windows writes it before text
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


def test_a_label_file_with_only_a_byte_order_mark_has_no_objects(tmp_path: Path):
    write(yolo(tmp_path) / "labels" / "train" / "p0.txt", BOM + yolo_line(*TRUTH[0][0]).encode())
    picture(tmp_path / "images" / "train" / "p9.png", 9)
    write(tmp_path / "labels" / "train" / "p9.txt", BOM)
    assert [len(one.labels) for one in open_boxes(tmp_path, on_defect="refuse").images["train"]] == [1, 0]


def test_a_missing_val_is_cut_from_train(tmp_path: Path):
    for k in range(20):
        picture(tmp_path / "JPEGImages" / f"p{k}.jpg", 9 * k)
        write(tmp_path / "Annotations" / f"p{k}.xml", annotation(thing("cat", (1, 1, 9, 9))))
    write(tmp_path / "ImageSets" / "Main" / "trainval.txt", "\n".join(f"p{k} 1" for k in range(14)))
    write(tmp_path / "ImageSets" / "Main" / "test.txt", "\n".join(f"p{k} -1" for k in range(14, 18)))
    folder = open_boxes(tmp_path)
    assert [len(folder.images[split]) for split in SPLITS] == [12, 2, 4]
    assert "test is kept for the final report" in folder.layout
    assert "images that are in no split, left out: 2" in folder.notes


def test_a_measured_split_needs_no_other(tmp_path: Path):
    data = open_box_data(FORMATS["COCO"](tmp_path), imgsz=64, measured="test")
    assert [len(part) for part in (data.train, data.val, data.test)] == [0, 0, 1]
    record = data.describe()
    assert (record["anchors"], record["layout"], record["counts"]["test"]["cat"]) == (None, "COCO; only test", 1)
    with pytest.raises(DataError, match="training boxes"):
        _ = data.anchors


def test_the_same_picture_in_two_splits_is_noted(tmp_path: Path):
    root = voc(tmp_path)
    shutil.copy(root / "JPEGImages" / "p0.jpg", root / "JPEGImages" / "p2.jpg")
    assert any("more than one split" in note for note in open_boxes(root).notes)


def test_without_defusedxml_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "defusedxml.ElementTree", None)
    with pytest.raises(FoveateError, match=r'pip install "foveate\[detect\]"'):
        open_boxes(voc(tmp_path))


@pytest.mark.parametrize("path", ["none", "file"])
def test_a_path_that_is_not_a_folder_is_refused(path: str, tmp_path: Path):
    write(tmp_path / "file", "x")
    with pytest.raises(DataError, match="a folder of images with boxes"):
        open_boxes(tmp_path / path)


def test_on_defect_has_two_values(tmp_path: Path):
    with pytest.raises(UsageError, match="'drop', 'refuse'"):
        open_boxes(voc(tmp_path), on_defect="fix")


def test_a_pixel_beyond_the_border_is_rounding(tmp_path: Path):
    root = yolo(tmp_path)
    write(root / "labels" / "train" / "p0.txt", "0 0.5 0.5 1.01 1.01")
    folder = open_boxes(root, on_defect="refuse")
    assert folder.images["train"][0].boxes.tolist() == [[0, 0, 80, 60]]


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda root: None, "an empty folder"),
        (lambda root: picture(root / "cat" / "1.png", 1), "cat"),
        (lambda root: picture(root / "JPEGImages" / "1.png", 1), "JPEGImages"),
    ],
)
def test_the_error_for_an_unknown_format_lists_the_known_ones(
    make: Callable[[Path], object], received: str, tmp_path: Path
):
    make(tmp_path)
    with pytest.raises(DataError, match=r"\(VOC\).*\(COCO\).*\(YOLO\)") as caught:
        open_boxes(tmp_path)
    assert caught.value.received == received
