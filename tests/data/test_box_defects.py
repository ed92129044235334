"""What every format has in common: suffixes in capitals, boxes twice, boxes of words; and from which pixel VOC counts."""

import json
from pathlib import Path
from typing import Any

import pytest

from data.box_folders import CLASSES, FORMATS, annotation, coco, coco_content, picture, thing, voc, write, yolo, yolo_line
from data.test_box_folder import Change, added, edit
from foveate.data.boxes.box_folder import open_boxes
from foveate.data.splits import SPLITS
from foveate.errors import DataError

XML, JSON, TXT = "Annotations/p0.xml", "annotations/instances_train2017.json", "labels/train/p0.txt"


@pytest.mark.parametrize("form", FORMATS)
def test_suffixes_may_be_in_capitals(form: str, tmp_path: Path) -> None:
    root = FORMATS[form](tmp_path)
    before = open_boxes(root).fingerprint()
    for path in [path for suffix in ("xml", "json", "txt") for path in root.rglob(f"*.{suffix}")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    assert open_boxes(root, on_defect="refuse").fingerprint() == before


def test_the_suffix_of_roboflows_annotations_may_be_in_capitals(tmp_path: Path) -> None:
    for k, split in enumerate(("train", "valid", "test")):
        picture(tmp_path / split / f"p{k}.png", 9)
        write(tmp_path / split / "_annotations.coco.JSON", json.dumps(coco_content(k)))
    assert [len(part) for part in open_boxes(tmp_path).pictures.values()] == [1, 1, 1]


@pytest.mark.parametrize(("make", "file"), [(voc, "Annotations/p0.XML"), (yolo, "labels/train/p0.TXT")])
def test_two_label_files_of_one_name_are_refused(make: Change, file: str, tmp_path: Path) -> None:
    root = make(tmp_path)
    write(root / file, "")
    with pytest.raises(DataError, match="one label file of each name in") as caught:
        open_boxes(root)
    assert caught.value.received == f"{Path(file).name} and {Path(file).stem}{Path(file).suffix.lower()}"


CAT = (10, 20, 40, 50)
TWICE: dict[str, tuple[Change, str]] = {
    "VOC": (
        lambda root: write(
            root / XML, annotation(thing("cat", (11, 21, 40, 50)), thing("ant", (11, 21, 40, 50)), thing("cat", (11, 21, 40, 50)))
        ),
        f"{XML}: object 3 (cat) is there twice, first as object 1: 10, 20, 40, 50",
    ),
    "COCO": (
        lambda root: edit(root, annotations=added(area=5.0)),
        f"{JSON}: annotation 3 (cat) is there twice, first as annotation 1: 10, 20, 40, 50",
    ),
    "YOLO": (
        lambda root: write(root / TXT, "\n".join(yolo_line(name, CAT) for name in ("cat", "ant", "cat"))),
        f"{TXT}: line 3 (cat) is there twice, first as line 1: 10, 20, 40, 50",
    ),
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_box_that_is_there_twice_counts_once(form: str, tmp_path: Path) -> None:
    change, message = TWICE[form]
    root = FORMATS[form](tmp_path)
    change(root)
    folder = open_boxes(root)
    assert [str(defect) for defect in folder.defects] == [message]
    (found,) = folder.pictures["train"]
    assert sorted(folder.classes[label] for label in found.labels) == ["ant", "cat"]
    with pytest.raises(DataError, match="is there twice"):
        open_boxes(root, on_defect="refuse")


def test_a_crowd_where_an_object_is_does_not_make_it_one_of_two(tmp_path: Path) -> None:
    edit(coco(tmp_path), annotations=added(iscrowd=1))
    (found,) = open_boxes(tmp_path, on_defect="refuse").pictures["train"]
    assert found.crowd.tolist() == [False, False, True]


def words(root: Path, form: str, word: Any) -> str:
    """Put a box with this word for a side before a good one in the first picture; return its file."""
    if form == "VOC":
        write(root / XML, annotation(thing("cat", (1, word, 3, 4)), thing("cat", (2, 3, 9, 9))))
    elif form == "COCO":
        edit(root, annotations=added(bbox=[1, word, 3, 4]))
    else:
        write(root / TXT, f"0 .1 {word} .1 .1\n0 .5 .5 .1 .1")
    return {"VOC": XML, "COCO": JSON, "YOLO": TXT}[form]


@pytest.mark.parametrize(
    ("form", "word"),
    [(form, word) for form in FORMATS for word in ("far", "1,5", "nan", "1e999")]
    + [("VOC", ""), ("VOC", " "), ("COCO", None), ("COCO", True), ("COCO", [1]), ("COCO", 10**400)],
    ids=lambda value: repr(value)[:9],
)
def test_a_side_that_is_no_number_costs_the_box_alone(form: str, word: Any, tmp_path: Path) -> None:
    root = FORMATS[form](tmp_path)
    before = len(open_boxes(root).pictures["train"][0].boxes) if form == "COCO" else 1
    file = words(root, form, word)
    folder = open_boxes(root)
    (defect,) = folder.defects
    assert defect.file == file
    assert "(cat) is not of finite numbers: " in defect.what
    assert len(folder.pictures["train"][0].boxes) == before
    with pytest.raises(DataError, match="is not of finite numbers"):
        open_boxes(root, on_defect="refuse")


def begun(root: Path, *boxes: tuple[object, ...], file: str = XML) -> list[list[float]]:
    """The boxes of the first picture, once these are in a file of the folder."""
    write(root / file, annotation(*(thing("cat", box) for box in boxes)))
    return open_boxes(root).pictures["train"][0].boxes.tolist()


COUNTS = "begins at 0, so this set counts pixels from 0, not from 1 as VOC does"


def test_a_set_of_voc_with_a_0_counts_from_0(tmp_path: Path) -> None:
    root = voc(tmp_path)
    assert begun(root, (1, 1, 80, 60), (11, 21, 40, 50)) == [[0, 0, 80, 60], [10, 20, 40, 50]]
    assert begun(root, (0, 5, 80, 60), (11, 21, 40, 50)) == [[0, 5, 80, 60], [11, 21, 40, 50]]
    assert f"a box in {XML} {COUNTS}" in open_boxes(root, on_defect="refuse").notes
    begun(root, (11, 21, 40, 50))
    assert begun(root, (3, 0, 8, 6), file="Annotations/p2.xml") == [[11, 21, 40, 50]]
    assert f"a box in Annotations/p2.xml {COUNTS}" in open_boxes(root).notes


@pytest.mark.parametrize("box", [(0, 0, 0, 0), (0, 5, 0, 9), (9, 0, 5, 9), (0, "far", 5, 9), (0, 0, "inf", 9), (-1, -2, 5, 9)], ids=repr)
def test_a_0_in_what_is_no_box_tells_nothing(box: tuple[object, ...], tmp_path: Path) -> None:
    assert begun(voc(tmp_path), (11, 21, 40, 50), box)[0] == [10, 20, 40, 50]
    assert not any("counts pixels" in note for note in open_boxes(tmp_path).notes)


def test_annotation_files_that_are_passed_over_are_told(tmp_path: Path) -> None:
    root = coco(tmp_path)
    assert not any("JSON" in note for note in open_boxes(root).notes)
    for name in ("annotations/my_extra.json", "annotations/captions_train2017.json", "instances.json", "info.json", "train2017/p0.json"):
        write(root / name, "{}")
    assert open_boxes(root, on_defect="refuse").notes[0] == (
        "JSON files skipped, as their names are neither instances_<split> nor <split>: "
        "annotations/captions_train2017.json; annotations/my_extra.json; info.json; instances.json"
    )


def test_a_folder_of_two_formats_is_refused(tmp_path: Path) -> None:
    """The annotations that come with COCO's labels in YOLO's form are those of val alone."""
    yolo(tmp_path)
    write(tmp_path / "annotations" / "instances_val2017.json", json.dumps(coco_content(1)))
    with pytest.raises(DataError, match="those of COCO and of YOLO"):
        open_boxes(tmp_path)
    coco(tmp_path / "other")
    write(tmp_path / "other" / "data.yaml", "names: [cat]")  # by itself no boxes
    assert open_boxes(tmp_path / "other").layout.startswith("COCO")


@pytest.mark.parametrize("name", ["cat", "all of them"])
def test_a_category_above_the_others_is_none_of_the_classes(name: str, tmp_path: Path) -> None:
    root = coco(tmp_path)
    for k, split in enumerate(("train", "val", "test")):
        content = coco_content(k)
        categories = [{**one, "supercategory": name} for one in content["categories"]]
        write(
            root / "annotations" / f"instances_{split}2017.json",
            json.dumps({**content, "categories": [{"id": 0, "name": name, "supercategory": "none"}, *categories]}),
        )
    assert open_boxes(root, on_defect="refuse").classes == CLASSES
    content = coco_content(0)
    content["categories"] += [{"id": 0, "name": "cat", "supercategory": "none"}]
    write(root / "annotations" / "instances_train2017.json", json.dumps(content))
    with pytest.raises(DataError, match="'cat', twice"):
        open_boxes(root)


def test_lists_of_voc_by_other_names_and_folders_inside(tmp_path: Path) -> None:
    root = voc(tmp_path)
    lists = root / "ImageSets" / "Main"
    (lists / "val.txt").rename(lists / "Valid.txt")
    picture(root / "JPEGImages" / "more" / "q.jpg", 9)
    folder = open_boxes(root, on_defect="refuse")
    assert [len(folder.pictures[split]) for split in SPLITS] == [1, 1, 1]
    assert folder.notes[0] == "folders not read: JPEGImages/more"
    write(lists / "val.txt", "p1")
    with pytest.raises(DataError, match=r"Valid\.txt and val\.txt for one split"):
        open_boxes(root)
