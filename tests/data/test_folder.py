import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data import open_data
from foveate.data.images.image_folder import open_folder
from foveate.data.splits import SPLITS
from foveate.errors import DataError, UsageError

COLOURS = {"cat": (200, 30, 30), "dog": (30, 200, 30)}


def fill(folder: Path, counts: dict[str, int], suffix: str = "png") -> Path:
    """Write `counts` images of each class, all different in the whole test."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for k in range(count):
            pixels = np.full((24, 32, 3), COLOURS[name], np.uint8)
            mark = hashlib.sha256(f"{folder.name} {name} {k}".encode()).digest()
            pixels[0, :10] = np.frombuffer(mark[:30], np.uint8).reshape(10, 3)
            Image.fromarray(pixels).save(folder / name / f"{k}.{suffix}")
    return folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for split, count in zip(SPLITS, (12, 4, 5), strict=True):
        fill(tmp_path / "pets" / split, {"dog": count, "cat": count})
    return tmp_path / "pets"


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}


def test_three_folders_are_used_as_they_are(pets: Path):
    before = state(pets)
    folder = open_folder(pets, seed=0)
    assert folder.split.classes == ("cat", "dog")
    for split, count in zip(SPLITS, (24, 8, 10), strict=True):
        items = getattr(folder.split, split)
        assert len(items) == count
        assert all(item.path.startswith(f"{split}/{folder.split.classes[item.label]}/") for item in items)
    assert folder.notes == ()
    assert state(pets) == before


@pytest.mark.parametrize(("absent", "kept"), [("test", "val"), ("val", "test")])
def test_the_one_held_out_folder_is_kept_for_the_report(absent: str, kept: str, pets: Path):
    shutil.rmtree(pets / absent)
    folder = open_folder(pets, seed=0)
    assert {item.path.split("/")[0] for item in folder.split.test} == {kept}
    assert {item.path.split("/")[0] for item in (*folder.split.train, *folder.split.val)} == {"train"}
    assert len(folder.split.val) == 4
    assert f"{kept}/ is kept for the final report" in folder.layout.words


def test_one_folder_is_split_by_the_seed(tmp_path: Path):
    root = fill(tmp_path / "pets", {"cat": 20, "dog": 40})
    folder = open_folder(root, seed=1)
    assert [len(getattr(folder.split, split)) for split in SPLITS] == [42, 9, 9]
    assert open_folder(root, seed=1) == folder
    assert open_folder(root, seed=2).split != folder.split


def test_a_class_may_be_called_train(tmp_path: Path):
    root = fill(tmp_path / "vehicles", {"cat": 9, "dog": 9})
    (root / "cat").rename(root / "train")
    assert open_folder(root, seed=0).split.classes == ("dog", "train")


def test_other_files_are_not_touched_but_counted(pets: Path):
    (pets / "train/cat/notes.txt").write_text("x")
    (pets / "train/cat/._0.jpg").write_text("x")
    (pets / "train/cat/Thumbs.db").write_text("x")
    (pets / "train/.cache").mkdir()
    (pets / "train/stray.jpg").write_text("x")
    folder = open_folder(pets, seed=0)
    assert folder.notes == (
        "files skipped because they are not images of a class: 1 .db, 1 .jpg outside a class folder, 1 .txt, 1 hidden",
    )
    assert len(folder.split.train) == 24


def test_folders_within_a_class_are_searched_but_a_loop_is_not(pets: Path):
    (pets / "train/cat/more").mkdir()
    (pets / "train/cat/0.png").rename(pets / "train/cat/more/0.PNG")
    (pets / "train/cat/more/again").symlink_to(pets / "train")
    assert len(open_folder(pets, seed=0).split.train) == 24


def test_the_same_picture_in_two_splits_or_classes_is_noted(pets: Path):
    shutil.copy(pets / "train/cat/0.png", pets / "test/cat/copy.png")
    shutil.copy(pets / "train/cat/1.png", pets / "train/dog/copy.png")
    notes = open_folder(pets, seed=0).notes
    assert notes == (
        "the same image in more than one split, 1 time: train/cat/0.png = test/cat/copy.png",
        "the same image in more than one class, 1 time: train/cat/1.png = train/dog/copy.png",
    )


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root), "no such folder"),
        (lambda root: (shutil.rmtree(root), root.write_text("x")), "a file"),
        (lambda root: (shutil.rmtree(root), root.mkdir()), "at least 2 class folders"),
        (lambda root: shutil.rmtree(root / "val/cat"), "class 'cat' has no images in val/"),
        (lambda root: empty(root / "val/cat"), "class 'cat' has no images in val/"),
        (lambda root: empty(root / "train/dog"), "class 'dog' has no images in train/"),
        (lambda root: shutil.copytree(root / "val/cat", root / "val/cow"), "class 'cow', which train/ does not have"),
        (lambda root: shutil.rmtree(root / "train"), "only val/, test/"),
        (lambda root: [shutil.rmtree(root / split / "dog") for split in SPLITS], "only 'cat'"),
        (lambda root: (root / "val/cat/bad.jpg").write_text("<html>"), "val/cat/bad.jpg"),
        (lambda root: (root / "val/cat/bad.jpg").touch(), "an empty file"),
        (lambda root: (root / "val/cat/bad.jpg").symlink_to("bad.jpg"), "symbolic links"),
    ],
)
def test_an_unusable_folder_is_refused_by_name(spoil, message: str, pets: Path):
    spoil(pets)
    with pytest.raises(DataError) as caught:
        open_folder(pets, seed=0)
    assert message in str(caught.value)
    assert str(pets) in str(caught.value)


def test_the_fingerprint_follows_content_names_split_and_options(pets: Path):
    first = open_data(pets, imgsz=16).fingerprint
    assert open_data(pets, imgsz=16).fingerprint == first
    others = {open_data(pets, imgsz=32).fingerprint, open_data(pets, imgsz=16, seed=1).fingerprint}
    (pets / "val/cat/0.png").rename(pets / "val/cat/zero.png")
    others.add(open_data(pets, imgsz=16).fingerprint)
    (pets / "val/cat/zero.png").rename(pets / "train/cat/zero.png")
    others.add(open_data(pets, imgsz=16).fingerprint)
    (pets / "train/cat/zero.png").write_bytes((pets / "train/cat/zero.png").read_bytes() + b"x")
    others.add(open_data(pets, imgsz=16).fingerprint)
    assert len(others | {first}) == 6


def damage(pets: Path) -> None:
    (pets / "val/cat/bad.jpg").write_text("<html>")
    (pets / "train/dog/empty.jpg").touch()
    whole = (pets / "train/cat/0.png").read_bytes()
    (pets / "train/cat/short.png").write_bytes(whole[: len(whole) // 2])


def test_all_images_that_cannot_be_read_are_named_at_once(pets: Path):
    damage(pets)
    with pytest.raises(DataError) as caught:
        open_folder(pets, seed=0)
    message = str(caught.value)
    assert "3 that are not: train/cat/short.png: damaged content" in message
    assert "; train/dog/empty.jpg: an empty file; val/cat/bad.jpg: content of no known image format" in message
    assert "leave them out: on_defect='drop'" in message


def test_unreadable_images_are_left_out_with_drop(pets: Path):
    before = open_data(pets, imgsz=16).fingerprint
    damage(pets)
    data = open_data(pets, imgsz=16, on_defect="drop")
    assert data.fingerprint == before
    assert data.details["notes"][0].startswith(
        "3 images that cannot be read, left out: train/cat/short.png: damaged content"
    )
    with pytest.raises(UsageError, match="on_defect"):
        open_data(pets, on_defect="mend")


def test_a_class_is_not_left_out_as_a_whole(pets: Path):
    for path in (pets / "val/cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"none of class 'cat' for val; 4 images that cannot be read"):
        open_folder(pets, seed=0, on_defect="drop")
