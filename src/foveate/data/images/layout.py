"""How a folder of images is laid out: which folders are splits, which are classes, and which images they hold."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from foveate.data.boxes.annotations import listed
from foveate.data.boxes.formats import has_boxes
from foveate.data.images.decode import SUFFIXES, shown, walk
from foveate.data.splits import SPLITS, Item, Split, divide, is_filler, split_of, splits_among
from foveate.errors import DataError, counted

__all__ = ["FolderLayout", "lay_out"]

_DEEPEST = 4  # folders around the data that are passed through; a link may lead back to itself
_LITTER = ("thumbs.db", "desktop.ini")
# Folders of images, and of an output for each image, as in segmentation; the names are in the singular.
_INPUTS = {"image", "img", "input", "photo", "picture"}
_OUTPUTS = {"annotation", "depth", "edge", "ground_truth", "groundtruth", "gt", "label", "mask", "segmentation"}
_OUTPUTS |= {"output", "target", "trimap"}


@dataclass(frozen=True)
class FolderLayout:
    """The images of each split, a sentence on the layout, where the images of each split come from, and notes."""

    split: Split
    words: str
    sources: Mapping[str, str]
    notes: tuple[str, ...]


def lay_out(root: Path, seed: int, measured: str | None, recorded: bool) -> FolderLayout:
    """Find splits and classes, as `open_folder` describes.

    Raises:
        DataError: folders that are neither, two folders for one split, or classes that differ or are empty.
    """
    skipped, notes = Counter[str](), list[str]()
    home = _inside(root, stop_at_splits=True)
    folders = _split_folders(root, home, notes)
    if measured in folders and not recorded:
        folders = {measured: folders[measured]}
    elif folders and "train" not in folders:
        there = ", ".join(_name(home, path) for path in folders.values())
        do = f"measure what is there: --split {' or '.join(folders)}" if measured else "add train/"
        raise DataError(
            expected=f"{measured or 'train'}/ in {shown(home)}",
            received=f"only {there}",
            do=f"{do}; or pass the folder that holds the folders of the classes",
        )
    places = folders or {"": home}
    names = {split: _name(root, path) for split, path in places.items()}
    first = places.get("train", next(iter(places.values())))
    # training a classifier needs two classes or more; measuring it needs one
    classes = _classes(root, first, least=2 if measured is None else 1)
    items = {split: _items(root, path, first, classes, skipped) for split, path in places.items()}
    parts, sources, words = _parts(items, names, measured, seed, classes)
    split = Split(classes, **{name: tuple(parts.get(name, ())) for name in SPLITS})
    return FolderLayout(split, words, sources, (*notes, *_skip_notes(skipped)))


def _parts(
    items: Mapping[str, list[Item]], names: Mapping[str, str], measured: str | None, seed: int, classes: tuple[str, ...]
) -> tuple[Mapping[str, list[Item]], Mapping[str, str], str]:
    """Return the images of each split, their sources, and a sentence; a missing split is taken from a given one."""
    how = f"within each class (seed {seed})"
    if len(items) == 1:
        (split, every), (name,) = *items.items(), names.values()
        if measured:
            words = f"only {name}" if split == measured else f"{name}, all of it {measured}"
            return {measured: every}, {measured: name}, words
        shares = (0.70, 0.15, 0.15)
        parts: dict[str, list[Item]] = dict(zip(SPLITS, divide(every, shares, seed, classes), strict=True))
        sources = {split: f"{share:.0%} of {name}" for split, share in zip(SPLITS, shares, strict=True)}
        return parts, sources, f"{name}, split 70 / 15 / 15 {how}"
    if len(items) == len(SPLITS):
        return items, names, f"{names['train']}, {names['val']} and {names['test']} as they are"
    train, (held_out,) = names["train"], [split for split in items if split != "train"]
    words = f"{train} and {names[held_out]}: {names[held_out]} is kept for the final report, "
    words += f"15 % of {train} {how} select the epoch"
    learnt, chosen = divide(items["train"], (0.85, 0.15), seed, classes)
    sources = {"train": f"85% of {train}", "val": f"15% of {train}", "test": names[held_out]}
    return {"train": learnt, "val": chosen, "test": items[held_out]}, sources, words


def _inside(folder: Path, *, stop_at_splits: bool) -> Path:
    """Return the folder of the data within folders that hold only one other folder, such as archive/dataset/."""
    place = folder
    for _ in range(_DEEPEST):
        inner = _subfolders(place)
        if len(inner) != 1:
            return place if inner else folder
        if stop_at_splits and split_of(inner[0]):
            return place
        if any(_pictures_in(place)):
            break
        place /= inner[0]
    return folder


def _split_folders(root: Path, home: Path, notes: list[str]) -> dict[str, Path]:
    """Return the folders of the splits that hold class folders; without any, the folders in `home` are classes."""
    inner = _subfolders(home)
    named = splits_among(inner)
    flat = [name for name in named if not _subfolders(home / name) and _holds_files(home / name)]
    if named.keys() == {*flat} == {*inner} != set() or len({named[name] for name in flat}) > 1:
        raise DataError(
            expected=f"a folder for each class in {_names(flat)}",
            received="images that are not in class folders",
            do=f"move the images of each class into a folder of their own: {shown(home / flat[0])}/<class>/*.jpg",
        )
    laid: dict[str, list[str]] = defaultdict(list)
    for name, split in named.items():
        if name not in flat and _holds_files(home / name):
            laid[split].append(name)
    if not laid:
        return {}
    others = [name for name in inner if name not in named and _holds_files(home / name)]
    if len(laid) == 1 and others:
        ((only, *_),) = laid.values()
        raise DataError(
            expected=f"only classes or only splits in {shown(home)}",
            received=f"{shown(only)}/, which holds folders and is named as a split, beside {_names(others)}",
            do=f"if {shown(only)}/ is a split, pass it as the data or move the others away; if not, rename it",
        )
    for split, names in laid.items():
        if len(names) > 1:
            raise DataError(
                expected=f"one folder for {split} in {shown(home)}",
                received=_names(names),
                do="join them, or move all but one away; rename those that are not splits",
            )
    if flat:
        notes.append(f"images without class folders, left out: {_names(flat)}")
    if empty := [name for name in named if name not in flat and not _holds_files(home / name)]:
        notes.append(f"empty folders, as if they were absent: {_names(empty)}")
    if others:
        notes.append(f"folders beside the splits, not read: {_names(others)}")
    return {
        split: _inside(home / name, stop_at_splits=False) for split in SPLITS if split in laid for name in laid[split]
    }


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _classes(root: Path, folder: Path, least: int) -> tuple[str, ...]:
    """Return the class folders in a folder. Raises DataError where they are too few, or are splits or parts."""
    classes = tuple(_subfolders(folder))
    if len(classes) < least or (len(classes) == 1 and split_of(classes[0])):
        raise _too_few(root, folder, classes, least)
    inner = {name: _subfolders(folder / name) for name in classes}
    if split := [name for name, its in inner.items() if len({*splits_among(its).values()}) > 1]:
        example = f"{shown(split[0])}/ that holds {_names(splits_among(inner[split[0]]))}"
        do = f"name the folder that holds the splits: {shown(folder / split[0])}"
        if len(split) == len(classes):
            do = f"put the classes into the splits: train/{shown(classes[0])}/, train/{shown(classes[-1])}/, ..."
        raise _no_classes(root, folder, example, do)
    kinds = {name.lower().removesuffix("s") for name in classes}
    if kinds <= _INPUTS | _OUTPUTS and len(kinds & _INPUTS) == 1 and kinds & _OUTPUTS:
        received = f"{_names(classes)}: images with an output for each, as for segmentation"
        do = "move the images of each class into a folder of their own; if these are classes, rename the folders"
        raise _no_classes(root, folder, received, do)
    counts = Counter(name.lower() for its in inner.values() for name in its)
    shared = [name for name, count in counts.items() if count > 1 and not is_filler(name)]
    if shared and 2 * len(shared) >= len(counts) and not any(any(_pictures_in(folder / name)) for name in classes):
        received = f"{_names(classes)}, which hold no images, but folders of the same names: {_names(shared)}"
        do = (
            "if these are the classes, join them, or rename the folders around them to train/, val/ and test/; if not, "
        )
        raise _no_classes(root, folder, received, do + "move the images of each class up into the class folder itself")
    return classes


def _items(root: Path, folder: Path, first: Path, classes: tuple[str, ...], skipped: Counter[str]) -> list[Item]:
    """Return the images of one split folder, whose classes must be those of the `first` split."""
    if unknown := sorted(set(_subfolders(folder)) - set(classes)):
        alike = next((name for name in classes if name.lower() == unknown[0].lower()), None)
        learnt = _name(root, first)
        raise DataError(
            expected=f"in {shown(folder)} the classes of {learnt}: {listed(map(shown, classes), 20)}",
            received=f"class {shown(unknown[0])!r}, which {learnt} does not have",
            do=f"rename it to {shown(alike)!r}" if alike else f"add its images to {learnt}, or move the folder away",
        )
    items = []
    for label, name in enumerate(classes):
        images = sorted(_images(folder / name, skipped))
        if not images:
            raise _without_images(root, folder / name, first == folder)
        items += [Item(path.relative_to(root).as_posix(), label) for path in images]
    skipped.update(_kind(path.name) for path in folder.iterdir() if path.is_file())
    return items


def _without_images(root: Path, folder: Path, first: bool) -> DataError:
    """Return the error for a class without an image, with the way to cure its cause."""
    files = [path.name for path in _files(folder)]
    suffixes = sorted({Path(name).suffix.lower() or "no suffix" for name in files})
    received = f"class {shown(folder.name)!r} has no images in {shown(folder.parent.name)}/"
    if has_boxes(root):
        do = "for boxes, add --task detect"
    elif files:
        received += f", but {counted(len(files), 'file')} with {listed(map(shown, suffixes))}"
        do = "save them as PNG or JPEG if they are images; else move the folder away"
    elif first:
        do = "add images, or move the folder away if it is not a class"
    else:
        do = f"add images; or move {shown(folder.parent)} away, to have its images taken from the training images"
    return DataError(
        expected=f"{shown(folder)}/*.jpg (or {', '.join(sorted(SUFFIXES - {'.jpg'}))})", received=received, do=do
    )


def _too_few(root: Path, folder: Path, classes: tuple[str, ...], least: int) -> DataError:
    """Return the error for a folder with too few class folders, with the way to cure its cause."""
    flat = sum(1 for _ in _pictures_in(folder / classes[0] if classes else folder))
    received = f"only {shown(classes[0])!r}" if classes else "none"
    if has_boxes(root):
        do = "for boxes, add --task detect"
    elif classes and split_of(classes[0]):
        do = f"move the images of each class into a folder of their own: {shown(folder / classes[0])}/<class>/*.jpg"
    elif classes:
        do = "add a folder with images of another class, such as those without the object: one class teaches nothing"
    elif flat:
        received = f"{counted(flat, 'image')} and no folder"
        do = f"move the images of each class into a folder of their own: {shown(folder)}/<class>/*.jpg"
    elif _holds_files(folder):
        received = f"no folder, but {listed(sorted(shown(path.name) for path in _files(folder)))}"
        do = f"name the folder that holds the images, {shown(folder)}/<class>/*.jpg; if this is an archive, unpack it"
    else:
        received, do = "an empty folder", f"check the path, or arrange the images as {shown(folder)}/<class>/*.jpg"
    return DataError(
        expected=f"at least {least} class folder{'s' * (least > 1)} in {shown(folder)}", received=received, do=do
    )


def _no_classes(root: Path, folder: Path, received: str, do: str) -> DataError:
    do = "for boxes, add --task detect" if has_boxes(root) else do
    return DataError(expected=f"a folder for each class in {shown(folder)}", received=received, do=do)


def _images(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """Yield every file below with the suffix of an image."""
    for path in _files(folder, skipped):
        if path.suffix.lower() in SUFFIXES:
            yield path
        else:
            skipped[_kind(path.name)] += 1


def _files(folder: Path, hidden: Counter[str] | None = None) -> Iterator[Path]:
    """Yield every file below that is not hidden; count the others."""
    for place, names in walk(folder):
        for name in names:
            if not name.startswith("."):
                yield place / name
            elif hidden is not None:
                hidden["hidden"] += 1


def _pictures_in(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder itself."""
    return (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")


def _holds_files(folder: Path) -> bool:
    return any(path.name.lower() not in _LITTER for path in _files(folder))


def _kind(name: str) -> str:
    if name.startswith("."):
        return "hidden"
    suffix = Path(name).suffix.lower()
    return f"{shown(suffix)} outside a class folder" if suffix in SUFFIXES else shown(suffix) or "without a suffix"


def _skip_notes(skipped: Counter[str]) -> Iterator[str]:
    if skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        yield f"files skipped because they are not images of a class: {kinds}"


def _name(root: Path, folder: Path) -> str:
    """Return the name of a split's folder for messages."""
    return "one folder" if folder == root else f"{shown(folder.relative_to(root).as_posix())}/"


def _names(folders: Iterable[str]) -> str:
    return listed((f"{shown(name)}/" for name in folders), 10)
