"""Folders of images as people keep them: which folders are splits, which are classes, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.data import open_data
from foveate.data.images.image_folder import Folder, open_folder
from foveate.data.splits import SPLITS, is_filler, split_of, splits_among
from foveate.errors import DataError


def fill(root: Path, *folders: str, classes: tuple[str, ...] = ("cat", "dog"), count: int = 7) -> Path:
    """Write images of each class into each folder, by default the root; "" as a class is the folder itself."""
    for folder in folders or (".",):
        for name in classes:
            place = root / folder / name
            place.mkdir(parents=True, exist_ok=True)
            for k in range(count):
                shade = np.random.default_rng([*f"{folder} {name} {k}".encode()]).integers(
                    0, 255, (16, 16, 3), np.uint8
                )
                Image.fromarray(shade).save(place / f"{k}.png")
    return root


def origin(folder: Folder) -> dict[str, set[str]]:
    """Return the first folders of the paths of each split."""
    return {name: {item.path.split("/")[0] for item in getattr(folder.split, name)} for name in SPLITS}


NAMES = {
    "train": ["train", "Training", "TRAIN", "train_set", "training_set", "seg_train", "train_images", "Train Images"],
    "val": ["val", "valid", "Validation", "dev", "eval", "val2017", "valid-set", "VAL_DATA"],
    "test": ["test", "Testing", "Test Set", "seg_test", "test_data", "images_test", "TestSet"],
}


@pytest.mark.parametrize(("name", "split"), [(name, split) for split, names in NAMES.items() for name in names])
def test_names_of_splits(name: str, split: str):
    assert split_of(name) == split


@pytest.mark.parametrize("name", ["trains", "trainer", "valet", "contest", "cat", "evals_of_dogs", "", "2019", "fold1"])
def test_names_that_are_no_splits(name: str):
    assert split_of(name) is None


def test_splits_with_a_name_before_or_after_are_found_only_together():
    assert splits_among(["asl_alphabet_train", "asl_alphabet_test"]) == {
        "asl_alphabet_train": "train",
        "asl_alphabet_test": "test",
    }
    assert splits_among(["train_flowers", "val_flowers", "roses"]) == {"train_flowers": "train", "val_flowers": "val"}
    assert splits_among(["toy_train", "toy_car", "steam_train"]) == {}


def test_fillers_say_nothing():
    assert [name for name in ("images", "Data Set", "rgb", "masks", "cat", "") if is_filler(name)] == [
        "images",
        "Data Set",
        "rgb",
    ]


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("Train", "Test"),
        ("train_set", "test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("train_images", "Test Set"),
        ("train", "valid"),
        ("TRAIN", "Validation"),
        ("train", "dev"),
        ("train", "eval"),
        ("flowers_train", "flowers_test"),
        ("train/images", "test/images"),
    ],
)
@pytest.mark.parametrize("around", ["", "archive", "archive/dataset"])
def test_splits_are_found_by_their_names(train: str, test: str, around: str, tmp_path: Path):
    root = fill(tmp_path / "data", *(f"{around}/{name}".strip("/") for name in (train, test)))
    data = open_data(root, imgsz=16)
    assert data.split is not None
    assert data.classes == ["cat", "dog"]
    prefix = f"{around}/" if around else ""
    assert all(item.path.startswith(f"{prefix}{test}/") for item in data.split.test)
    assert len(data.split.test) == 14
    assert all(item.path.startswith(f"{prefix}{train}/") for item in (*data.split.train, *data.split.val))
    assert data.describe()["sources"] == {
        "train": f"85% of {prefix}{train}/",
        "val": f"15% of {prefix}{train}/",
        "test": f"{prefix}{test}/",
    }
    assert data.describe()["counts"]["test"] == {"cat": 7, "dog": 7}


def test_three_splits_of_any_names_are_used_as_they_are(tmp_path: Path):
    folder = open_folder(fill(tmp_path, "Training", "valid", "Test Set"), seed=0)
    assert origin(folder) == {"train": {"Training"}, "val": {"valid"}, "test": {"Test Set"}}
    assert folder.layout.words == "Training/, valid/ and Test Set/ as they are"
    assert folder.layout.sources == {"train": "Training/", "val": "valid/", "test": "Test Set/"}


def test_a_folder_around_one_folder_of_classes_is_passed_through(tmp_path: Path):
    folder = open_folder(fill(tmp_path, "archive/dataset"), seed=0)
    assert folder.split.classes == ("cat", "dog")
    assert folder.layout.words == "archive/dataset/, split 70 / 15 / 15 within each class (seed 0)"


def test_training_images_alone_are_split(tmp_path: Path):
    folder = open_folder(fill(tmp_path, "train"), seed=0)
    assert [len(getattr(folder.split, name)) for name in SPLITS] == [10, 2, 2]
    assert folder.layout.words == "train/, split 70 / 15 / 15 within each class (seed 0)"


@pytest.mark.parametrize("file", ["", ".gitkeep", "Thumbs.db"])
def test_an_empty_split_counts_as_absent(file: str, tmp_path: Path):
    fill(tmp_path, "train", "test")
    for name in ("cat", "dog"):
        (tmp_path / "val" / name).mkdir(parents=True)
        if file:
            (tmp_path / "val" / name / file).touch()
    (tmp_path / "valid").mkdir()
    folder = open_folder(tmp_path, seed=0)
    assert origin(folder) == {"train": {"train"}, "val": {"train"}, "test": {"test"}}
    assert "empty folders, as if they were absent: val/; valid/" in folder.notes


def test_images_without_class_folders_beside_a_split_are_left_out_with_a_note(tmp_path: Path):
    fill(tmp_path, "train", "val")
    fill(tmp_path, "test", "pred", classes=("",))
    folder = open_folder(tmp_path, seed=0)
    assert origin(folder)["test"] == {"val"}
    assert folder.notes == (
        "images without class folders, left out: test/",
        "folders beside the splits, not read: pred/",
    )


@pytest.mark.parametrize("suffix", [".jfif", ".JFIF", ".mpo", ".jpe", ".JPEG", ".tif", ".TIFF", ".webp", ".bmp"])
def test_usual_suffixes_of_images_are_read_in_any_case(suffix: str, tmp_path: Path):
    fill(tmp_path)
    other = {".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP"}
    for path in [*tmp_path.rglob("*.png")]:
        with Image.open(path) as image:
            frames = {"save_all": True, "append_images": [image]} if suffix == ".mpo" else {}
            kind = "MPO" if suffix == ".mpo" else other.get(suffix.lower(), "JPEG")
            image.save(path.with_suffix(suffix), kind, **frames)
        path.unlink()
    data = open_data(tmp_path, imgsz=16)
    assert len(data.train) == 10
    assert data.image("train", 0).shape == (16, 16, 3)
    assert data.describe()["notes"] == []


def move(root: Path, name: str, new: str) -> None:
    (root / new).parent.mkdir(parents=True, exist_ok=True)
    (root / name).rename(root / new)


REFUSED: dict[str, tuple[Any, str, str]] = {
    "folds": (lambda root: fill(root, "fold1", "fold2"), "fold1/; fold2/, which hold no images", "join them"),
    "years with different classes": (
        lambda root: (fill(root, "2019"), fill(root, "2020", classes=("cat",))),
        "folders of the same names: cat/",
        "join them",
    ),
    "years of one class": (lambda root: fill(root, "2019", "2020", classes=("cat",)), "same names: cat/", "join them"),
    "case of the classes": (
        lambda root: (fill(root, "a", classes=("Cat", "Dog")), fill(root, "b")),
        "same names: cat/; dog/",
        "join them",
    ),
    "images beside masks": (
        lambda root: fill(root, "cat", "dog", classes=("images", "masks")),
        "folders of the same names: masks/",
        "move the images of each class up",
    ),
    **{
        f"{name} as classes": (
            lambda root, photos=photos, name=name: fill(root, "", classes=(photos, name)),
            "images with an output for each",
            "move the images of each class into a folder",
        )
        for photos, name in [("images", "masks"), ("Image", "GT"), ("imgs", "labels"), ("input", "target")]
    },
    "splits of images and masks": (
        lambda root: fill(root, "train", "test", classes=("images", "masks")),
        "images with an output for each",
        "move the images of each class into a folder",
    ),
    "splits in classes": (
        lambda root: fill(root, "cat", "dog", classes=("train", "test")),
        "cat/ that holds test/; train/",
        "put the classes into the splits: train/cat/, train/dog/",
    ),
    "data beside something else": (
        lambda root: (fill(root, "dataset/train", "dataset/val"), fill(root, "samples", classes=("",))),
        "dataset/ that holds train/; val/",
        "name the folder that holds the splits: ",
    ),
    "two folders for one split": (lambda root: fill(root, "train", "val", "Validation"), "Validation/; val/", "join"),
    "two for train": (lambda root: fill(root, "train", "Training", "test"), "Training/; train/", "join"),
    "flat splits": (
        lambda root: fill(root, "Train", "Test", classes=("",)),
        "images that are not in class folders",
        "/Test/<class>/*.jpg",
    ),
    "one flat split": (lambda root: fill(root, "train", classes=("",)), "not in class folders", "/train/<class>/*.jpg"),
    "one flat split twice": (lambda root: fill(root, "train/train", classes=("",)), "only 'train'", "/train/<class>/*"),
    "a class called train": (
        lambda root: (fill(root, "train"), fill(root, "car", classes=("",))),
        "train/, which holds folders and is named as a split, beside car/",
        "if train/ is a split",
    ),
    "one class": (lambda root: fill(root, classes=("cat",)), "only 'cat'", "add a folder with images of another class"),
    "flat": (lambda root: fill(root, classes=("",)), "7 images and no folder", "a folder of their own"),
    "nothing": (lambda root: root.mkdir(exist_ok=True), "an empty folder", "check the path"),
    "an archive": (lambda root: (root / "data.zip").touch(), "no folder, but data.zip", "unpack it"),
    "other images": (
        lambda root: (fill(root), [path.rename(path.with_suffix(".heic")) for path in (root / "cat").iterdir()]),
        "class 'cat' has no images in",
        "save them as PNG or JPEG",
    ),
    "an empty class": (
        lambda root: (fill(root), (root / "bird").mkdir()),
        "class 'bird' has no images in",
        "add images, or move the folder away if it is not a class",
    ),
    "a class that val lacks": (
        lambda root: (fill(root, "train"), fill(root, "val", classes=("cat",))),
        "class 'dog' has no images in val/",
        "val away, to have its images taken from the training images",
    ),
    "a class that train lacks": (
        lambda root: (fill(root, "train"), fill(root, "val", classes=("cat", "dog", "cow"))),
        "class 'cow', which train/ does not have",
        "add its images to train/",
    ),
    "a class in another case": (
        lambda root: (fill(root, "train"), fill(root, "val", classes=("cat", "Dog"))),
        "class 'Dog', which train/ does not have",
        "rename it to 'dog'",
    ),
    "no train": (lambda root: fill(root, "val", "test"), "only val/, test/", "add train/"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_with_certainty_is_refused_with_its_cure(name: str, tmp_path: Path):
    make, received, do = REFUSED[name]
    make(tmp_path)
    with pytest.raises(DataError) as caught:
        open_folder(tmp_path, seed=0)
    assert received in caught.value.received
    assert do in caught.value.do
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("inner", [("persian", "siamese"), ("images",)])
def test_classes_of_folders_are_classes(inner: tuple[str, ...], tmp_path: Path):
    fill(tmp_path, "cat", classes=inner)
    fill(tmp_path, "dog", classes=("images",))
    assert open_folder(tmp_path, seed=0).split.classes == ("cat", "dog")


@pytest.mark.parametrize("folders", [("Testing",), ("train", "Testing"), ("Testing/Testing",)])
def test_the_measured_split_is_found_by_any_of_its_names(folders: tuple[str, ...], tmp_path: Path):
    folder = open_folder(fill(tmp_path, *folders), seed=0, measured="test")
    assert (len(folder.split.test), len(folder.split.train)) == (14, 0)
    assert folder.layout.words == f"only {folders[-1]}/"
