"""Each cause of data that cannot be trained on has its own words and its own advice; smaller faults are noted."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data.box_folders import FORMATS, SIZE, TXT, annotation, picture, thing, write, yolo_line
from foveate.data.boxes.box_data import open_box_data
from foveate.data.boxes.box_folder import open_boxes
from foveate.errors import DataError


def for_all(root: Path, text: Callable[[Path], str]) -> None:
    for path in root.glob("labels/*/*.txt"):
        write(path, text(path))


def emptied(root: Path) -> None:
    for path in root.glob("images/*/*.png"):
        path.unlink()


# the change to a good folder, and words of what was received and of the advice
CAUSES: dict[str, tuple[str, Callable[[Path], object], str, str]] = {
    "no labels": (
        "YOLO",
        lambda root: [path.unlink() for path in root.glob("labels/*/*.txt")],
        "has no label file",
        "put a label file of the same name",
    ),
    "labels of other images": (
        "YOLO",
        lambda root: [path.rename(path.with_stem("other")) for path in root.glob("labels/*/*.txt")],
        "has no label file",
        "put a label file of the same name",
    ),
    "empty labels": ("YOLO", lambda root: for_all(root, lambda path: ""), "every label file is empty", "label objects"),
    "only outside": (
        "YOLO",
        lambda root: for_all(root, lambda path: "0 1.5 1.5 .1 .1"),
        "lies outside",
        "correct the boxes that were left out",
    ),
    "only pixels": (
        "YOLO",
        lambda root: for_all(root, lambda path: "0 40 30 20 10"),
        "has pixels: 40 30 20 10",
        "correct the boxes that were left out",
    ),
    "pixels in one split": (
        "YOLO",
        lambda root: write(root / "labels" / "val" / "p1.txt", "0 40 30 20 10"),
        "has pixels: 40 30 20 10",
        "correct the boxes that were left out of val",
    ),
    "commas": (
        "YOLO",
        lambda root: write(root / "labels" / "val" / "p1.txt", "0, 0.5, 0.5, 0.2, 0.2"),
        "line 1 with commas: 0, 0.5",
        "separate the values by spaces",
    ),
    "a split without objects": (
        "YOLO",
        lambda root: write(root / "labels" / "val" / "p1.txt", ""),
        "none in val, which has 1 image",
        "label images of val, or move them to train",
    ),
    "only difficult": (
        "VOC",
        lambda root: write(
            root / "Annotations/p1.xml", annotation(thing("bee", (2, 2, 9, 9), "<difficult>1</difficult>"))
        ),
        "in val only boxes that are crowd or difficult",
        "add images with other boxes to val",
    ),
    "no images": ("YOLO", emptied, "has no image in images/", "correct the names and paths of the images"),
    "only a label format of another kind": (
        "YOLO",
        lambda root: write(root / TXT, "3 .5 .5 .1 .1"),
        "class 3, outside the list of 0 to 2",
        "the list of names: the first class is 0",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_has_its_own_advice(cause: str, tmp_path: Path) -> None:
    form, change, received, do = CAUSES[cause]
    change(FORMATS[form](tmp_path))
    with pytest.raises(DataError) as caught:
        open_boxes(tmp_path)
    assert received in caught.value.received
    assert do in caught.value.do


def test_empty_val_folders_are_absent(tmp_path: Path) -> None:
    """An export with all images in train has an empty val, whether data.yaml names it or not."""
    for k in range(12):
        picture(tmp_path / "images" / "train" / f"p{k}.png", 20 * k)
        write(tmp_path / "labels" / "train" / f"p{k}.txt", yolo_line("cat", (2, 3, 40, 30)))
    (tmp_path / "images" / "val").mkdir()
    (tmp_path / "labels" / "val").mkdir()
    for paths in ("", "train: images/train\nval: images/val\n"):
        write(tmp_path / "data.yaml", f"{paths}names: [cat]")
        folder = open_boxes(tmp_path, on_defect="refuse")
        assert [len(part) for part in folder.images.values()] == [8, 2, 2]
        assert "without an image, so taken as absent: val" in folder.notes
        assert dict(folder.sources) == dict.fromkeys(("train", "val", "test"), "images/train/")


def test_an_xml_of_0_bytes_is_a_picture_without_objects(tmp_path: Path) -> None:
    root = FORMATS["VOC"](tmp_path)
    picture(root / "JPEGImages" / "p3.jpg", 9)
    write(root / "Annotations" / "p3.xml", "")
    write(root / "ImageSets" / "Main" / "train.txt", "p0\np3\n")
    folder = open_boxes(root, on_defect="refuse")
    assert [(one.path, len(one.boxes)) for one in folder.images["train"]] == [
        ("JPEGImages/p0.jpg", 2),
        ("JPEGImages/p3.jpg", 0),
    ]


def test_defects_are_told_in_three_groups(tmp_path: Path) -> None:
    lines = ["0 .5 .5 0 .1", "0 .9 .5 .4 .2", f"{yolo_line('cat', (2, 3, 40, 30))} 0.87"]
    write(FORMATS["YOLO"](tmp_path) / TXT, "\n".join(lines))
    folder = open_boxes(tmp_path)
    assert [note.partition(": ")[::2] for note in folder.notes[:3]] == [
        ("1 defect, left out", f"{TXT}: line 1 (cat) is empty: 40, 27, 40, 33"),
        (
            "1 defect, cut at the border of the image",
            f"{TXT}: line 2 (cat) reaches out of the 80 x 60 image, where it was cut: 56, 24, 88, 36",
        ),
        (
            "1 defect, kept, but doubtful",
            f"{TXT}: line 3 has a sixth value, 0.87 (a confidence, as of predictions?): ignored",
        ),
    ]
    (one,) = folder.images["train"]
    assert one.boxes.round().tolist() == [[56, 24, 80, 36], [2, 3, 40, 30]]


def test_classes_under_a_pixel_are_named_with_the_size_that_would_do(tmp_path: Path) -> None:
    root = FORMATS["YOLO"](tmp_path)
    tiny = f"1 .5 .5 {0.5 / SIZE[0]} .1"  # half a pixel of the image, so 160 pixels of input make it one
    write(root / TXT, f"{yolo_line('cat', (2, 3, 40, 30))}\n{tiny}")
    note = "classes whose boxes are mostly under a pixel at --imgsz 64: ant; --imgsz 160 would do"
    assert note in open_box_data(root, imgsz=64).details["notes"]
    assert not any("under a pixel" in text for text in open_box_data(root, imgsz=160).details["notes"])
    write(root / TXT, tiny)
    with pytest.raises(DataError, match="if they are right, --imgsz 160 would do"):
        _ = open_box_data(root, imgsz=64).anchors
    write(root / TXT, f"{yolo_line('cat', (2, 3, 40, 30))}\n1 .5 .5 .0001 .1")
    assert any("no size up to 2048 would do" in text for text in open_box_data(root, imgsz=64).details["notes"])
