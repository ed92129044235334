"""Working copies in every cache: the same pixels, within the bound, whatever happens to the files."""

import logging
import os
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from foveate.data import SPLITS, open_box_data, open_data
from foveate.data.images import disk_store, working_copies
from foveate.data.images.disk_store import DiskStore, recipe
from foveate.data.images.reduction import Reduction
from foveate.data.images.working_copies import CACHES, CacheOptions, RamStore
from foveate.data.samples import write_samples
from foveate.errors import UsageError
from foveate.experiment.data import open_study_data
from foveate.experiment.options import StudyOptions
from foveate.training.batches import training_loader

KINDS = tuple(kind for kind in CACHES if kind != "none")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the cache on disk, which does not exist yet."""
    folder = tmp_path_factory.mktemp("cache") / "foveate"
    monkeypatch.setenv("FOVEATE_CACHE", str(folder))
    return folder / "images"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve images of noise in two classes, among them JPEGs of several sizes, a rotated one and a panorama."""
    rng = np.random.default_rng(0)
    for k in range(12):
        height, width = [(97, 131), (40, 30), (52, 240), (41, 41)][k % 4]
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        path = tmp_path / "photos" / "ab"[k % 2] / f"{k:02}.{'png' if k % 3 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if k == 3 else 1
        image.save(path, exif=exif)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples"))[1]


def classes_of(folder: Path, options: CacheOptions) -> Any:
    return open_data(folder, imgsz=32, cache=options)


def boxes_of(folder: Path, options: CacheOptions) -> Any:
    return open_box_data(folder, imgsz=64, cache=options)


@pytest.fixture(params=["photos", "boxes"])
def opened(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that opens the images of a classifier, or of a detector, with a cache."""
    folder = request.getfixturevalue(request.param)
    opener = classes_of if request.param == "photos" else boxes_of
    return lambda kind, size=None: opener(folder, CacheOptions(kind, size))


def samples(data: Any) -> Iterator[torch.Tensor]:
    for split in SPLITS:
        for k in range(len(getattr(data, split))):
            yield from (part for part in getattr(data, split)[k] if isinstance(part, torch.Tensor))


def same(some: Any, other: Any) -> bool:
    return equal(samples(some), samples(other))


def equal(some: Iterable[torch.Tensor], other: Iterable[torch.Tensor]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(some, other, strict=True))


def without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every image that has to be decoded fail."""
    monkeypatch.setattr(working_copies, "read_image", None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cache_changes_no_pixel_and_saves_the_decoding(
    kind: str, opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
):
    plain, kept = opened("none"), opened(kind)
    assert kept.copies.store.whole
    assert kept.describe() == plain.describe()
    for _ in range(2):  # as it is decoded, and as it was kept
        assert same(plain, kept)
        for data in (plain, kept):
            data.train.set_epoch(3)
    expected = list(samples(plain))
    without_decoding(monkeypatch)
    assert equal(samples(kept), expected)
    if kind == "disk":
        again = opened("disk")
        again.train.set_epoch(3)
        assert equal(samples(again), expected)
    with pytest.raises(TypeError):
        list(samples(plain))


@pytest.mark.parametrize("kind", CACHES)
def test_workers_give_the_same_batches_and_share_what_they_keep(
    kind: Any, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    def batches(data: Any, workers: int) -> list[Any]:
        loader: Any = training_loader(data.train, range(len(data.train)), 2, seed=1, workers=workers)
        found = []
        for epoch in range(2):
            loader.batch_sampler.set_epoch(epoch)
            found += list(loader)
        return found

    expected = batches(classes_of(photos, CacheOptions("none")), 0)
    assert len(expected) == 8
    for workers in (0, 2, 4):
        data = classes_of(photos, CacheOptions(kind))
        for (images, labels), (wanted, numbers) in zip(batches(data, workers), expected, strict=True):
            assert torch.equal(images, wanted)
            assert torch.equal(labels, numbers)
    if kind != "none":
        without_decoding(monkeypatch)
        assert len(list(samples_of_train(data))) == len(data.train)


def samples_of_train(data: Any) -> Iterator[Any]:
    return (data.train[k] for k in range(len(data.train)))


def test_memory_keeps_the_first_images_that_fit_and_is_pickled_empty():
    images = {name: np.full((4, 5, 3), k, np.uint8) for k, name in enumerate("abc", 1)}
    store = RamStore(dict.fromkeys(images, (5, 4)), limit=3 * 8 + 2 * 60)
    for name, image in images.items():
        assert store.get(name) is None
        store.keep(name, image)
    assert not store.whole
    assert [None if (kept := store.get(name)) is None else int(kept[0, 0, 0]) for name in images] == [1, 2, None]
    kept: Any = store.get("a")
    with pytest.raises(ValueError, match="read-only"):
        kept[0] = 9
    assert [pickle.loads(pickle.dumps(store)).get(name) for name in images] == [None] * 3


def test_memory_gives_no_image_that_is_not_complete_or_not_of_the_expected_size():
    store = RamStore({"a": (5, 4)}, limit=1000)
    store.keep("a", np.ones((4, 6, 3), np.uint8))
    assert store.get("a") is None
    store.keep("a", np.ones((4, 5, 3), np.uint8))
    store._memory[-1] = 0  # as if another process were still writing
    assert store.get("a") is None
    store.keep("a", np.ones((4, 5, 3), np.uint8))
    assert store.get("a") is not None


def test_more_memory_than_there_is_keeps_nothing():
    store = RamStore({"a": (2**28, 2**28)}, limit=2**62)
    store.keep("a", np.zeros((4, 5, 3), np.uint8))
    assert (store.whole, store.get("a")) == (False, None)


def bytes_in(cache: Path) -> int:
    return sum(file.stat().st_size for file in cache.glob("??/*"))


def test_the_disk_holds_at_most_the_size_and_forgets_the_data_that_were_not_opened_for_longest(
    photos: Path, cache: Path, tmp_path: Path
):
    first = classes_of(photos, CacheOptions("disk"))
    list(samples(first))
    all_of_it = bytes_in(cache)
    assert int((cache / "bytes").read_text()) == all_of_it
    for file in cache.glob("??/*"):
        os.utime(file, (0, 0))
    for file in photos.rglob("*.*"):
        Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "new.png")
        (tmp_path / "other" / file.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "new.png").rename(tmp_path / "other" / file.parent.name / f"{file.stem}.png")
    other, plain = (classes_of(tmp_path / "other", options) for options in (CacheOptions("disk"), CacheOptions("none")))
    assert bytes_in(cache) == all_of_it
    assert same(other, plain)
    assert bytes_in(cache) > 1.5 * all_of_it
    limit = 1.5 * all_of_it / 2**30
    again = classes_of(tmp_path / "other", CacheOptions("disk", limit))  # a smaller size: some of the first data go
    assert again.copies.store.whole
    assert bytes_in(cache) <= 1.5 * all_of_it
    kept = {file for file in cache.glob("??/*") if file.stat().st_mtime > 0}
    assert kept == {again.copies.store._file(item.path) for item in again.split.items}
    tiny = classes_of(photos, CacheOptions("disk", all_of_it / 3 / 2**30))
    assert not tiny.copies.store.whole
    for _ in range(2):
        assert same(tiny, classes_of(photos, CacheOptions("none")))
    assert 0 < bytes_in(cache) <= all_of_it / 3


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


def swap(file: Path) -> None:
    """Put a whole copy of another image in its place."""
    shutil.copy(next(one for one in sorted(file.parent.parent.glob("??/*")) if one != file), file)


DAMAGE = {
    "a flipped bit": flip,
    "a lost end": lambda file: os.truncate(file, file.stat().st_size - 1),
    "a lost header": lambda file: os.truncate(file, 20),
    "nothing": lambda file: os.truncate(file, 0),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "another image": swap,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_found_out_and_made_again(
    damage: Callable[[Path], object], photos: Path, caplog: pytest.LogCaptureFixture, cache: Path
):
    plain, data = (classes_of(photos, CacheOptions(kind)) for kind in ("none", "disk"))
    list(samples(data))
    item = data.test.items[0]
    file = data.copies.store._file(item.path)
    whole = file.read_bytes()
    damage(file)
    with caplog.at_level(logging.WARNING, "foveate"):
        assert same(data, plain)
    assert item.path in caplog.text
    assert file.read_bytes() == whole
    caplog.clear()
    assert same(data, plain)
    assert not caplog.records


def test_a_crash_leaves_nothing_that_counts_and_the_folder_may_be_emptied_at_any_time(photos: Path, cache: Path):
    data = classes_of(photos, CacheOptions("disk"))
    list(samples(data))
    kept = bytes_in(cache)
    (next(cache.glob("??")) / "abc.part").write_bytes(bytes(1000))
    for file in cache.glob("??/*"):
        os.utime(file, (0, 0))
    classes_of(photos, CacheOptions("disk"))
    assert bytes_in(cache) == int((cache / "bytes").read_text()) == kept
    assert min(file.stat().st_mtime for file in cache.glob("??/*")) > 0, "opened again"
    shutil.rmtree(cache)
    assert same(data, classes_of(photos, CacheOptions("none")))
    next(cache.glob("??/*")).unlink()
    (cache / "bytes").write_text("1e")  # as a crash leaves it
    assert same(data, classes_of(photos, CacheOptions("none")))
    assert bytes_in(cache) == int((cache / "bytes").read_text()) == kept


def test_files_that_other_processes_remove_while_data_are_opened_end_nothing(
    photos: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    data = classes_of(photos, CacheOptions("disk"))
    list(samples(data))
    listed, touched = Path.glob, os.utime
    kept = sorted(cache.glob("??/*"))

    def glob(folder: Path, pattern: str) -> Iterator[Path]:
        found = list(listed(folder, pattern))
        kept[1].unlink(missing_ok=True)
        return iter(found)

    def utime(file: Path) -> None:
        with FileLock(cache / ".lock").acquire(0):  # other processes need not wait for it
            kept[0].unlink(missing_ok=True)
        touched(file)

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "foveate"):
        patched.setattr(Path, "glob", glob)
        patched.setattr(os, "utime", utime)
        again = classes_of(photos, CacheOptions("disk"))
    assert again.copies.store.whole
    assert len(list(cache.glob("??/*"))) == len(kept) - 2
    assert same(again, classes_of(photos, CacheOptions("none")))
    assert sorted(cache.glob("??/*")) == kept
    assert not caplog.records


def test_an_image_that_changed_after_it_was_checked_is_not_kept(photos: Path, cache: Path):
    data = classes_of(photos, CacheOptions("disk"))
    changed = photos / data.train.items[0].path
    Image.new("RGB", (90, 60), (9, 8, 7)).save(changed)
    list(samples(data))
    assert not data.copies.store._file(data.train.items[0].path).exists()
    assert data.copies.store._file(data.train.items[1].path).exists()
    assert same(classes_of(photos, CacheOptions("disk")), classes_of(photos, CacheOptions("none")))


def test_a_cache_that_cannot_be_written_is_said_once_and_left_out(
    photos: Path, cache: Path, caplog: pytest.LogCaptureFixture
):
    cache.parent.write_text("a file in the place of the folder")
    with caplog.at_level(logging.WARNING, "foveate"):
        data = classes_of(photos, CacheOptions("disk"))
        assert same(data, classes_of(photos, CacheOptions("none")))
    assert len([record for record in caplog.records if "Nothing more is kept" in record.message]) == 1
    assert not data.copies.store.whole


def test_nothing_is_written_beside_the_images(photos: Path, cache: Path):
    before = sorted(photos.rglob("*"))
    list(samples(classes_of(photos, CacheOptions("disk"))))
    assert sorted(photos.rglob("*")) == before
    assert len(list(cache.glob("??/*"))) == 12


def test_the_name_of_a_copy_changes_with_all_that_its_pixels_depend_on(monkeypatch: pytest.MonkeyPatch):
    names = [
        recipe("a" * 64, Reduction(42), None),
        recipe("b" * 64, Reduction(42), None),
        recipe("a" * 64, Reduction(43), None),
        recipe("a" * 64, Reduction(42, "longer"), None),
        recipe("a" * 64, Reduction(42), (0, 4095)),
    ]
    disk_store.decoder.cache_clear()
    monkeypatch.setattr(disk_store.features, "version", lambda name: f"{name} 9.9")
    names.append(recipe("a" * 64, Reduction(42), None))
    disk_store.decoder.cache_clear()
    assert len(set(names)) == 6


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cache": "hdd"}, "cache"),
        ({"cache": "disk", "cache_size": 0.0}, "positive number of GiB"),
        ({"cache": "ram", "cache_size": float("inf")}, "positive number of GiB"),
        ({"cache": "none", "cache_size": 2.0}, "with --cache ram or disk"),
        ({"cache": "disk", "data": None}, "--cache only with a folder of images"),
        ({"cache_size": 1.0, "data": Path("planted:where")}, "--cache-size only with a folder of images"),
    ],
)
def test_senseless_caches_are_refused(options: dict[str, Any], expected: str):
    with pytest.raises(UsageError, match=expected):
        StudyOptions(**{"data": Path("photos"), **options})


@pytest.mark.parametrize(("task", "folder", "imgsz"), [("classify", "photos", 32), ("detect", "boxes", 64)])
def test_the_options_of_a_command_reach_the_cache(
    task: str, folder: str, imgsz: int, request: pytest.FixtureRequest, cache: Path
):
    options: dict[str, Any] = {"task": task, "data": request.getfixturevalue(folder), "imgsz": imgsz}
    data = open_study_data(StudyOptions(**options, cache="disk", cache_size=0.25).resolve())
    assert data.copies is not None
    assert isinstance(data.copies.store, DiskStore)
    assert (data.copies.store.folder, data.copies.store.limit) == (cache, 2**28)
    list(samples(data))
    assert bytes_in(cache) > 0


def test_a_study_may_go_on_with_another_cache():
    ram, disk = (StudyOptions(data=Path("photos"), cache=kind).resolve() for kind in ("ram", "disk"))
    assert ram.asked() == disk.asked()
