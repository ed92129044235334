"""Image folders: `train/<class>/*.jpg` beside `val/` and `test/`, or one folder of classes, which is split here."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.checks import check_choice
from foveate.data.boxes.annotations import listed
from foveate.data.boxes.formats import has_boxes
from foveate.data.images.decode import SUFFIXES, check_image, open_regular, read_image, shown, walk
from foveate.data.splits import ON_DEFECT, SPLIT_NAMES, SPLITS, Item, Split, as_recorded, divide, undivided
from foveate.errors import DataError, counted

__all__ = ["Folder", "open_folder", "twin_notes"]

_NAMED = 20  # unreadable images that are named one by one
_FORMAT = 1  # of the fingerprint


@dataclass(frozen=True)
class Folder:
    """The images of a folder, all checked: every header is read and every byte hashed."""

    root: Path
    split: Split
    digests: dict[str, str]
    sizes: dict[str, tuple[int, int]]
    layout: str
    notes: tuple[str, ...]

    def fingerprint(self, **options: Any) -> str:
        """Return the sha256 of the manifest (split, path, content) and of the options of their views."""
        manifest = [
            [name, item.path, item.label, self.digests[item.path]]
            for name in SPLITS
            for item in getattr(self.split, name)
        ]
        record = {"format": _FORMAT, "classes": self.split.classes, "manifest": manifest, "options": options}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def open_folder(
    root: Path, seed: int, record: Split | None = None, measured: str | None = None, on_defect: str = "refuse"
) -> Folder:
    """Find the images of each split. Nothing is written.

    With train/, val/ and test/, each is its own split. With train/ and one other folder, that folder is the test set,
    and 15 % of train/ are the validation set, which selects the epoch. One folder of classes is split 70 / 15 / 15. All
    splits are stratified and depend only on the names and the seed. With `measured`, an unsplit folder of classes
    becomes that split as a whole, and an existing folder of that split is used as it is, with or without train/. Images
    in the `record` of an earlier split stay in their splits. With `on_defect` "refuse", only the headers are read, and
    unreadable images raise an error that names them; with "drop", every image is decoded, and unreadable ones are left
    out.

    Raises:
        DataError: no such folder, classes that differ or are empty, or files that are not readable images.
        UsageError: another `on_defect`.
    """
    check_choice("on_defect", on_defect, ON_DEFECT)
    if not root.is_dir():
        received = "a file" if root.exists() else "no such folder"
        raise DataError(expected=f"a folder of images at {shown(root)}", received=received, do="check the path")
    skipped: Counter[str] = Counter()
    try:
        found, layout = _lay_out(root, seed, skipped, measured, recorded=record is not None)
    except OSError as error:
        raise DataError(
            expected=f"a readable folder at {shown(root)}", received=str(error), do="check its permissions"
        ) from None
    split, sizes, digests, defects = as_recorded(found, record), {}, {}, {}
    for item in split.items:
        try:
            sizes[item.path] = _checked(root / item.path, whole=on_defect == "drop")
            with open_regular(root / item.path) as file:
                digests[item.path] = hashlib.file_digest(file, "sha256").hexdigest()
        except DataError as error:
            defects[item.path] = error
    if defects and on_defect == "refuse":
        raise _unreadable(root, defects)
    split = _without(root, split, defects)
    notes = (*_skip_notes(skipped), *_defect_notes(defects), *twin_notes(split, digests))
    return Folder(root, split, digests, sizes, layout, notes)


def _checked(path: Path, whole: bool) -> tuple[int, int]:
    """Return the (width, height) of an image; with `whole`, decode all of it as a check. Raises DataError."""
    size = check_image(path)
    if whole:
        read_image(path, at_least=1)
    return size


def _unreadable(root: Path, defects: Mapping[str, DataError]) -> DataError:
    """Return the error that names every image that is not readable."""
    do = "leave them out: on_defect='drop'"
    if len(defects) == 1:
        (error,) = defects.values()
        return DataError(
            expected=error.expected, received=error.received, do=f"{error.do}; or {do.replace('them', 'it')}"
        )
    named = listed((f"{shown(path)}: {error.received}" for path, error in defects.items()), _NAMED)
    received = f"{len(defects)} that are not: {named}"
    return DataError(expected=f"readable images in {shown(root)}", received=received, do=f"replace them, or {do}")


def _without(root: Path, split: Split, defects: Mapping[str, DataError]) -> Split:
    """Return the split without the defective images. Raises DataError if a class has no images left in a part."""
    if not defects:
        return split
    parts = {name: tuple(item for item in getattr(split, name) if item.path not in defects) for name in SPLITS}
    for name, part in parts.items():
        if lost := {item.label for item in getattr(split, name)} - {item.label for item in part}:
            (note,) = _defect_notes(defects)
            raise DataError(
                expected=f"readable images of every class in {shown(root)}",
                received=f"none of class {shown(split.classes[min(lost)])!r} for {name}; {note}",
                do="replace the damaged images",
            )
    return Split(split.classes, **parts)


def _defect_notes(defects: Mapping[str, DataError]) -> Iterator[str]:
    if defects:
        named = listed((f"{shown(path)}: {error.received}" for path, error in defects.items()), _NAMED)
        yield f"{counted(len(defects), 'image')} that cannot be read, left out: {named}"


def _lay_out(root: Path, seed: int, skipped: Counter[str], measured: str | None, recorded: bool) -> tuple[Split, str]:
    folders = {name: found for name in SPLITS if (found := _split_folder(root, name))}
    least = 2 if measured is None else 1  # training a classifier needs two classes or more; measuring it needs one
    if measured in folders and not recorded:
        classes = _classes(folders[measured], least)
        return undivided(
            _items(root, folders[measured], classes, skipped), measured, classes
        ), f"only {folders[measured].name}/"
    if not folders:
        classes = _classes(root, least)
        items = _items(root, root, classes, skipped)
        if measured:
            return undivided(items, measured, classes), f"one folder, all of it {measured}"
        parts = divide(items, (0.70, 0.15, 0.15), seed, classes)
        return Split(classes, *map(tuple, parts)), f"one folder, split 70 / 15 / 15 within each class (seed {seed})"
    if "train" not in folders or len(folders) == 1:
        raise DataError(
            expected=f"train/ and val/ or test/ in {shown(root)}",
            received=f"only {', '.join(f'{path.name}/' for path in folders.values())}",
            do="add the missing folder, or name the folder that holds the classes itself to have it split for you",
        )
    classes = _classes(folders["train"], least)
    found = {name: _items(root, path, classes, skipped) for name, path in folders.items()}
    if len(found) == len(SPLITS):
        return Split(classes, **{name: tuple(found[name]) for name in SPLITS}), "train/, val/ and test/ as they are"
    held_out = next(name for name in found if name != "train")
    train, val = divide(found["train"], (0.85, 0.15), seed, classes)
    layout = (
        f"train/ and {folders[held_out].name}/: {folders[held_out].name}/ is kept for the final report, "
        f"15 % of train/ (within each class, seed {seed}) select the epoch"
    )
    return Split(classes, tuple(train), tuple(val), tuple(found[held_out])), layout


def _split_folder(root: Path, split: str) -> Path | None:
    """Return the folder of a split; a folder that holds images and no folders is a class, such as trains."""
    folders = (root / name for name, its in SPLIT_NAMES.items() if its == split)
    return next((folder for folder in folders if folder.is_dir() and _subfolders(folder)), None)


def _subfolders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _classes(folder: Path, least: int) -> tuple[str, ...]:
    classes = tuple(_subfolders(folder))
    if len(classes) < least:
        raise DataError(
            expected=f"at least {least} class folder{'s' * (least > 1)} in {shown(folder)}",
            received=f"only {shown(classes[0])!r}" if classes else "none",
            do=f"lay the images out as {shown(folder)}/<class>/*.jpg",
        )
    return classes


def _items(root: Path, folder: Path, classes: tuple[str, ...], skipped: Counter[str]) -> list[Item]:
    """Return the images of one split folder, whose classes must be exactly `classes`."""
    if unknown := sorted(set(_subfolders(folder)) - set(classes)):
        raise DataError(
            expected=f"in {shown(folder)} the classes of train/: {', '.join(map(shown, classes))}",
            received=f"class {shown(unknown[0])!r}, which train/ does not have",
            do="add its images to train/ or remove the folder",
        )
    items = []
    for label, name in enumerate(classes):
        images = sorted(_images(folder / name, skipped))
        if not images:
            raise DataError(
                expected=f"{shown(folder / name)}/*.jpg (or {', '.join(sorted(SUFFIXES - {'.jpg'}))})",
                received=f"class {shown(name)!r} has no images in {shown(folder.name)}/",
                do="for boxes, add --task detect"
                if has_boxes(root)
                else "add some, or remove the class from every split",
            )
        items += [Item(path.relative_to(root).as_posix(), label) for path in images]
    skipped.update(_kind(path.name) for path in folder.iterdir() if path.is_file())
    return items


def _images(folder: Path, skipped: Counter[str]) -> Iterator[Path]:
    """Yield every file below with the suffix of an image."""
    for place, names in walk(folder):
        for name in names:
            if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                skipped[_kind(name)] += 1
            else:
                yield place / name


def _kind(name: str) -> str:
    if name.startswith("."):
        return "hidden"
    suffix = Path(name).suffix.lower()
    return f"{shown(suffix)} outside a class folder" if suffix in SUFFIXES else shown(suffix) or "without a suffix"


def _skip_notes(skipped: Counter[str]) -> Iterator[str]:
    if skipped:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
        yield f"files skipped because they are not images of a class: {kinds}"


def twin_notes(split: Split, digests: Mapping[str, str]) -> Iterator[str]:
    """Yield notes on identical files: in two splits they make scores too high; in two classes one label is wrong."""
    twins: dict[str, list[tuple[str, Item]]] = defaultdict(list)
    for name in SPLITS:
        for item in getattr(split, name):
            twins[digests[item.path]].append((name, item))
    across = [group for group in twins.values() if len({name for name, _ in group}) > 1]
    torn = [group for group in twins.values() if len({item.label for _, item in group}) > 1]
    for groups, what in ((across, "in more than one split"), (torn, "in more than one class")):
        if groups:
            example = " = ".join(shown(item.path) for _, item in groups[0])
            yield f"the same picture {what}, {len(groups)} {'time' if len(groups) == 1 else 'times'}: {example}"
