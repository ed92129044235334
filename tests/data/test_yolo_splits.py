"""YOLO folders as users have them: subfolders, years, paths and lists in data.yaml, outlines; omissions are noted."""

from pathlib import Path

import numpy as np
import pytest

from data.box_folders import picture, write, yolo
from foveate.data.boxes.box_folder import BoxFolder, open_boxes
from foveate.data.splits import SPLITS
from foveate.errors import DataError

BOX = "0 .5 .5 .2 .2"
NAMES = "names: [cat, ant, bee]\n"


def lay(root: Path, *places: str, yaml: str = "") -> Path:
    """Put an image at each of these places in images/, and its label file at the same place in labels/."""
    for k, place in enumerate(places):
        picture(root / "images" / f"{place}.png", 20 * k)
        write(root / "labels" / f"{place}.txt", BOX)
    write(root / "data.yaml", NAMES + yaml)
    return root


def found(folder: BoxFolder) -> dict[str, list[str]]:
    """Check that each image has its box, and return the short names of the images of each split."""
    assert all(len(one.boxes) == 1 for part in folder.images.values() for one in part)
    return {
        split: [one.path.removeprefix("images/").removesuffix(".png") for one in folder.images[split]]
        for split in SPLITS
    }


def test_subfolders_are_mirrored(tmp_path: Path) -> None:
    root = lay(tmp_path, "train/a/p", "train/b/deep/p", "train/p", "val/a/p", "test/p")
    folder = open_boxes(root, on_defect="refuse")
    assert found(folder) == {
        "train": ["train/a/p", "train/b/deep/p", "train/p"],
        "val": ["val/a/p"],
        "test": ["test/p"],
    }
    write(root / "labels" / "train" / "c" / "p.txt", BOX)
    (root / "labels" / "train" / "a" / "p.txt").unlink()
    assert [str(defect) for defect in open_boxes(root).defects] == [
        "images/train/a/p.png: has no label file, so it is used as an image without objects",
        "labels/train/c/p.txt: has no image in images/train/c/",
    ]


def test_folders_of_a_split_may_have_a_year(tmp_path: Path) -> None:
    folder = open_boxes(
        lay(tmp_path / "two", "train2017/p", "train2017/q", "train2017/r", "val2017/p"), on_defect="refuse"
    )
    assert sorted(found(folder)["train"] + found(folder)["val"]) == ["train2017/p", "train2017/q", "train2017/r"]
    assert found(folder)["test"] == ["val2017/p"]
    folder = open_boxes(lay(tmp_path / "coco128", *(f"train2017/{k}" for k in range(10))), on_defect="refuse")
    assert [len(part) for part in found(folder).values()] == [6, 2, 2]


LISTS = {
    "from the list": ("../images/a/p.png", []),
    "from data.yaml": ("./images/a/p.png", []),
    "with a mark of Windows and empty lines": ("\ufeffimages/a/p.png\r\n\r\n  \r\n", []),
    "more than once": ("images/a/p.png\n./images/a/p.png\n", []),
    "beside what is gone": ("images/a/gone.png\nimages/a/p.png\n../../images/a/p.png\nimages", [1, 3, 4]),
}


@pytest.mark.parametrize(("content", "vain"), LISTS.values(), ids=LISTS)
def test_data_yaml_names_folders_and_lists(content: str, vain: list[int], tmp_path: Path) -> None:
    yaml = "path: ../data sets/somewhere\ntrain: [images/b, images/c]\nval: lists/first.txt\ntest: images/d/\n"
    root = lay(tmp_path, "a/p", "b/p", "b/deep/p", "c/p", "d/p", yaml=yaml)
    write(root / "lists" / "first.txt", content)
    folder = open_boxes(root)
    assert found(folder) == {"train": ["b/deep/p", "b/p", "c/p"], "val": ["a/p"], "test": ["d/p"]}
    assert folder.layout == "YOLO; train, val and test as they are"
    lines = content.splitlines()
    assert [str(defect) for defect in folder.defects] == [
        f"lists/first.txt: line {k} names no image inside this data folder: {lines[k - 1]}" for k in vain
    ]


def test_paths_count_from_path_and_may_be_absolute(tmp_path: Path) -> None:
    root = lay(tmp_path, "a/p", "b/p", "c/p", yaml=f"path: images\ntrain: a\nval: {tmp_path}/images/b\ntest: c.TXT\n")
    write(root / "c.TXT", f"{tmp_path}/images/c/p.png")
    assert found(open_boxes(root, on_defect="refuse")) == {"train": ["a/p"], "val": ["b/p"], "test": ["c/p"]}


def test_a_folder_seen_from_elsewhere_and_pictures_that_are_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = lay(tmp_path / "data", "a/p", "b/p", "c/p", yaml="train: images/a\nval: b.txt\ntest: images/c\n")
    write(root / "b.txt", "images/b/p.png")
    (tmp_path / "store").mkdir()
    (root / "images/b/p.png").rename(tmp_path / "store" / "1234")
    (root / "images/b/p.png").symlink_to(tmp_path / "store" / "1234")
    monkeypatch.chdir(tmp_path / "store")
    assert found(open_boxes(Path("../data"), on_defect="refuse")) == {"train": ["a/p"], "val": ["b/p"], "test": ["c/p"]}


def test_labels_lie_beside_pictures_that_are_in_no_folder_called_images(tmp_path: Path) -> None:
    for k, split in enumerate(SPLITS):
        picture(tmp_path / "pictures" / split / "p.png", 9 * k)
        write(tmp_path / "pictures" / split / "p.txt", BOX)
    write(tmp_path / "data.yaml", NAMES + "".join(f"{split}: pictures/{split}\n" for split in SPLITS))
    folder = open_boxes(tmp_path, on_defect="refuse")
    assert [[one.path for one in folder.images[split]] for split in SPLITS] == [
        [f"pictures/{split}/p.png"] for split in SPLITS
    ]


STALE = (
    "train: ../train/images\n",
    "train: images/train\nval: images/test\ntest: 7\n",
    "train: images/train\nval: images/train\n",
)


@pytest.mark.parametrize("stale", STALE)
def test_missing_paths_are_ignored_if_folders_give_the_splits(stale: str, tmp_path: Path) -> None:
    root = lay(tmp_path, "train/p", "val/p", "test/p", yaml=stale)
    assert found(open_boxes(root, on_defect="refuse")) == {"train": ["train/p"], "val": ["val/p"], "test": ["test/p"]}


def test_lists_can_split_one_folder(tmp_path: Path) -> None:
    root = lay(tmp_path, *(f"train/{k}" for k in range(4)), "test/p", yaml="train: train.txt\nval: val.txt\n")
    write(root / "train.txt", "images\\train\\0.png\r\nimages\\train\\1.png\r\n")  # as Windows writes paths
    write(root / "val.txt", "images/train/2.png\nimages/gone.png")
    folder = open_boxes(root)
    assert found(folder) == {"train": ["train/0", "train/1"], "val": ["train/2"], "test": ["test/p"]}
    assert [str(one) for one in folder.defects] == [
        "val.txt: line 2 names no image inside this data folder: images/gone.png"
    ]
    assert folder.notes[0] == "images that are in no split, left out: 1 (images/train/: 1)"


def test_a_folder_that_data_yaml_adds_to_a_split_is_read(tmp_path: Path) -> None:
    root = lay(tmp_path, "train/p", "val/p", "test/p", yaml="train: [images/train, extra/images]\n")
    picture(root / "extra" / "images" / "e.png", 9)
    write(root / "extra" / "labels" / "e.txt", BOX)
    assert sorted(found(open_boxes(root, on_defect="refuse"))["train"]) == ["extra/images/e", "train/p"]


def test_a_split_may_have_several_folders_and_capitals(tmp_path: Path) -> None:
    places = ("train2007/p", "train2012/p", "val2007/p", "valid/p", "Test/p")
    assert found(open_boxes(lay(tmp_path, *places), on_defect="refuse")) == {
        "train": ["train2007/p", "train2012/p"],
        "val": ["val2007/p", "valid/p"],
        "test": ["Test/p"],
    }


def test_linked_folders_are_read_and_loops_are_not(tmp_path: Path) -> None:
    root = lay(tmp_path / "data", "train/p", "val/p")
    for folder in ("images", "labels"):
        (root / folder / "train" / "again").symlink_to(root / folder)
    picture(tmp_path / "store" / "p.png", 9)
    write(tmp_path / "labels" / "p.txt", BOX)
    for split in ("test", "train/more"):
        (root / "images" / split).symlink_to(tmp_path / "store")
        (root / "labels" / split).symlink_to(tmp_path / "labels")
    folder = open_boxes(root, on_defect="refuse")
    assert found(folder) == {"train": ["train/more/p", "train/p"], "val": ["val/p"], "test": ["test/p"]}


def test_the_names_of_classes_are_looked_for(tmp_path: Path) -> None:
    root = lay(tmp_path, "train/p", "train/classes", "val/p", "test/p")
    (root / "data.yaml").rename(root / "coco128.yaml")
    assert open_boxes(root, on_defect="refuse").classes == ("ant", "bee", "cat")
    write(root / "other.yaml", NAMES)
    with pytest.raises(DataError) as caught:
        open_boxes(root)
    assert caught.value.received == "coco128.yaml; other.yaml"
    (root / "coco128.yaml").unlink()
    write(root / "other.yaml", "lr: 1")
    with pytest.raises(DataError) as caught:
        open_boxes(root)
    assert caught.value.received == "none of them, but other.yaml without names"
    write(root / "labels" / "classes.txt", "cat\nant")
    folder = open_boxes(root, on_defect="refuse")
    assert (folder.classes, found(folder)["train"]) == (("ant", "cat"), ["train/classes", "train/p"])


def test_images_in_no_split_are_noted(tmp_path: Path) -> None:
    root = lay(tmp_path, "train/p", "val/p", "test/p", "holdout/p", "holdout/q", "holdout/deep/p", "p")
    picture(root / "images" / "test2017" / "p.png", 9)  # without labels
    assert open_boxes(root, on_defect="refuse").notes[0] == (
        "images that are in no split, left out: 5 "
        "(images/: 1; images/holdout/: 2; images/holdout/deep/: 1; images/test2017/: 1)"
    )
    picture(root / "valid" / "images" / "p.png", 9)
    assert "left out: 6" in open_boxes(root).notes[0]
    root = lay(
        tmp_path / "named", "a/p", "a/q", "b/p", "c/p", "d/p", yaml="train: a.txt\nval: images/b\ntest: images/c\n"
    )
    write(root / "a.txt", "images/a/p.png")
    assert (
        open_boxes(root, on_defect="refuse").notes[0]
        == "images that are in no split, left out: 2 (images/a/: 1; images/d/: 1)"
    )


# the lines of splits in data.yaml, a list file, and what the error says was received
REFUSED = {
    "outside": ("train: ../elsewhere\n", "", "train: ../elsewhere, where there is none"),
    "outside, absolute": ("train: /\n", "", "train: /, where there is none"),
    "outside by path": ("path: ..\ntrain: elsewhere\n", "", "train: elsewhere, where there is none"),
    "not there": ("train: images/a\nval: images/e\n", "", "val: images/e, where there is none"),
    "not there, of many": ("train: [images/a, images/e]\n", "", "train: images/e, where there is none"),
    "no path": ("train: images/a\ntest: {a: b}\n", "", "test: dict, where there is none"),
    "an image": ("train: images/a/p.png\n", "", "train: images/a/p.png, where there is none"),
    "a long name": (f"train: {'x' * 5000}\n", "", "train: xxx"),
    "a list of nothing here": (
        "train: list.txt\n",
        "../elsewhere/p.png\n/content/p.png\n",
        "no line that names an image inside",
    ),
    "one folder twice": ("train: images/a\nval: images/a\n", "", "images/a/p.png in train and in val"),
    "one image twice": ("train: images\ntest: list.txt\n", "images/b/p.png", "images/b/p.png in train and in test"),
    "two of one name": ("train: list.txt\n", "images/b/p.png\nimages/b/p.bmp", "p.bmp and p.png"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_data_yaml_must_not_name(what: str, tmp_path: Path) -> None:
    yaml, content, message = REFUSED[what]
    lay(tmp_path / "elsewhere", "p")
    root = lay(tmp_path / "data", "a/p", "b/p", "c/p", yaml=yaml)
    write(root / "list.txt", content)
    if "bmp" in content:
        picture(root / "images" / "b" / "p.bmp", 9)
    with pytest.raises(DataError) as caught:
        open_boxes(root)
    assert str(root) in caught.value.expected
    assert message in caught.value.received
    assert len(str(caught.value)) < 1000


def test_the_error_for_a_wrong_path_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_boxes(lay(tmp_path, "a/p", yaml="train: /content/images\nval: images/a\n"))
    assert caught.value.expected == f"in {tmp_path}/data.yaml paths of folders, or of lists (.txt), inside {tmp_path}"
    assert caught.value.received == "train: /content/images, where there is none"
    assert caught.value.do == "write paths relative to data.yaml, or remove these lines: images/ is then split for you"


def test_a_split_that_is_named_and_empty_is_absent(tmp_path: Path) -> None:
    root = lay(tmp_path, "a/p", "a/q", "a/r", "b/p", yaml="train: images/a\nval: images/c\ntest: images/b\n")
    (root / "images" / "c").mkdir()
    folder = open_boxes(root)
    assert [len(part) for part in found(folder).values()] == [2, 1, 1]
    assert "without an image, so taken as absent: val" in folder.notes


def test_a_list_of_0_bytes_is_absent(tmp_path: Path) -> None:
    root = lay(tmp_path, *(f"a/{k}" for k in range(6)), yaml="train: train.txt\nval: val.txt\n")
    write(root / "train.txt", "".join(f"images/a/{k}.png\n" for k in range(6)))
    write(root / "val.txt", "")
    folder = open_boxes(root, on_defect="refuse")
    assert [len(part) for part in found(folder).values()] == [4, 1, 1]


@pytest.mark.parametrize(("places", "least"), [(["a/p", "a/q"], 3), (["train/p", "val/p"], 2)])
def test_too_few_pictures_to_split_are_refused(places: list[str], least: int, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_boxes(lay(tmp_path, *places))
    assert caught.value.expected == f"at least {least} images in {tmp_path} to draw splits from"


def test_only_data_yaml_is_not_a_data_set(tmp_path: Path) -> None:
    write(tmp_path / "data.yaml", NAMES)
    with pytest.raises(DataError, match=r"images/ with labels/ in .*, or the paths of images in data.yaml") as caught:
        open_boxes(tmp_path)
    assert caught.value.received == "neither"


def test_an_outline_is_the_box_around_it(tmp_path: Path) -> None:
    root = yolo(tmp_path)
    lines = ["0 .25 .5 .5 .25 .75 .5 .5 .75", "1 .5 .5 .5 .5", "2 .1 .1 .2 .1 .2 .3"]
    lines += ["1 .1 nan .2 .1 .2 .3", "1 .1 .1 .2 .1 .2 far", "1 .1 .1 .2 .1 .3 .1"]
    write(root / "labels" / "train" / "p0.txt", "\n".join(lines))
    folder = open_boxes(root)
    (one,) = folder.images["train"]
    np.testing.assert_allclose(one.boxes, [[20, 15, 60, 45], [20, 15, 60, 45], [8, 6, 16, 18]], atol=1e-5)
    assert [folder.classes[label] for label in one.labels] == ["cat", "ant", "bee"]
    assert folder.notes[0] == "lines that are outlines, used as the boxes around them: 5"
    assert [defect.what.split(":")[0] for defect in folder.defects] == [
        "line 4 (ant) has a number that is not finite",
        "line 5 (ant) has a number that is not finite",
        "line 6 (ant) is empty",
    ]


def test_hidden_subfolders_are_not_read(tmp_path: Path) -> None:
    root = lay(tmp_path, "train/p", "val/p", "test/p", "train/.cache/p", "train/__MACOSX/p")
    assert found(open_boxes(root, on_defect="refuse")) == {"train": ["train/p"], "val": ["val/p"], "test": ["test/p"]}
