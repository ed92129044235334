"""The splits of a YOLO folder, by data.yaml and by its folders, and the folders of the labels."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from foveate.data.boxes.annotations import (
    LARGEST_LIST,
    Defect,
    broken,
    files_in,
    folders_in,
    image_files,
    listed,
    read_lines,
)
from foveate.data.images.decode import SUFFIXES, shown, walk
from foveate.data.splits import SPLIT_NAMES, SPLITS
from foveate.errors import DataError

__all__ = ["has_folders", "label_folders", "left_out", "mirrored", "split_pictures"]


def has_folders(root: Path) -> bool:
    """Return whether there are folders of images beside folders of labels."""
    return bool(_split_folders(root)) or all((root / name).is_dir() for name in ("images", "labels"))


def split_pictures(root: Path, yaml: Path, content: Mapping[Any, Any], defects: list[Defect]) -> dict[str, list[Path]]:
    """Return the pictures of each split, or of "" without splits; missing listed images become defects.

    Raises:
        DataError: neither folders nor data.yaml give the pictures, data.yaml alone gives wrong paths, or two pictures
            in a folder have one name.
    """
    folders, missing = _split_folders(root), list[Defect]()
    try:
        named = _named_pictures(root, yaml, content, missing)
    except DataError:
        if not folders:
            raise
        named, missing = {}, []  # paths are often wrong after a folder was moved
    defects += missing
    taken = {picture for part in named.values() for picture in part}
    laid = {
        split: [picture for place in places for picture in _pictures_below(place) if picture not in taken]
        for split, places in folders.items()
        if split not in named
    }
    if laid or named:
        return {split: {**laid, **named}[split] for split in SPLITS if split in laid or split in named}
    if has_folders(root):
        return {"": list(_pictures_below(root / "images"))}
    raise DataError(
        expected=f"images/ with labels/ in {shown(root)}, or the paths of pictures in {shown(yaml.name)}",
        received="neither",
        do="lay the pictures out as images/train/ and images/val/, their labels as labels/train/ and labels/val/",
    )


def mirrored(root: Path, folder: Path, one: str = "images", other: str = "labels") -> Path:
    """Return the folder whose path has `other` for the last `one`; the same folder where its path has no `one`."""
    parts = list(folder.relative_to(root).parts)
    if one in parts:
        parts[len(parts) - 1 - parts[::-1].index(one)] = other
    return root.joinpath(*parts)


def label_folders(root: Path, splits: Mapping[str, Iterable[Path]]) -> list[Path]:
    """Return the sorted folders that hold labels and no images."""
    images = {picture.parent for part in splits.values() for picture in part}
    return sorted({*_all_below(root, "labels"), *(mirrored(root, folder) for folder in images)} - images)


def left_out(root: Path, splits: Mapping[str, Iterable[Path]]) -> Iterator[str]:
    """Yield notes on images that are in no split, and on linked folders, which are not read."""
    taken = {picture for part in splits.values() for picture in part}
    folders = sorted({*_all_below(root, "images"), *(picture.parent for picture in taken)})
    counts = {folder: sum(image not in taken for image in files_in(folder, SUFFIXES)) for folder in folders}
    if total := sum(counts.values()):
        places = listed(
            f"{shown(folder.relative_to(root).as_posix())}/: {count}" for folder, count in counts.items() if count
        )
        yield f"images that are in no split, left out: {total} ({places})"
    links = [path for folder in folders for path in folders_in(folder) if path.is_symlink()]
    if unread := [link for link in links if not any(folder.is_relative_to(link) for folder in folders)]:
        yield f"linked folders, not read: {listed(shown(link.relative_to(root).as_posix()) for link in unread)}"


def _split_folders(root: Path) -> dict[str, list[Path]]:
    """Return the folders of images of each split, such as images/train2017 or train/images, with labels."""
    found: dict[str, list[Path]] = {}
    inner, outer = folders_in(root / "images"), folders_in(root)
    for named, images in [*zip(inner, inner, strict=True), *((folder, folder / "images") for folder in outer)]:
        if (split := _split_name(named)) and images.is_dir() and mirrored(root, images).is_dir():
            found.setdefault(split, []).append(images)
    return found


def _split_name(folder: Path) -> str | None:
    return SPLIT_NAMES.get(re.sub(r"20\d\d$", "", folder.name).lower())


def _all_below(root: Path, name: str) -> Iterator[Path]:
    """Yield the folders called `name` in the folder and in those of splits, and every folder below them."""
    for top in (root, *filter(_split_name, folders_in(root))):
        yield from (folder for folder, _ in walk(top / name))


def _named_pictures(root: Path, yaml: Path, content: Mapping[Any, Any], defects: list[Defect]) -> dict[str, list[Path]]:
    """Return the pictures of each split for which data.yaml has paths of folders or of lists."""
    bases = [root / path, root] if isinstance(path := content.get("path"), str) else [root]
    found: dict[str, list[Path]] = {}
    owner: dict[Path, str] = {}
    for key, split in SPLIT_NAMES.items():
        for text in value if isinstance(value := content.get(key), list) else [value]:
            if text is None or text == "":
                continue
            found.setdefault(split, [])
            for picture in _pictures_at(root, yaml, key, text, bases, defects):
                if picture not in owner:
                    found[split].append(picture)
                if owner.setdefault(picture, split) != split:
                    received = f"{picture.relative_to(root).as_posix()} in {owner[picture]} and in {split}"
                    raise broken(yaml, received, "put each picture into one split; a missing split is taken from train")
    return found


def _pictures_at(
    root: Path, yaml: Path, key: str, text: object, bases: Sequence[Path], defects: list[Defect]
) -> list[Path]:
    place = _inside(root, bases, text) if isinstance(text, str) else None
    if place and place.is_dir():
        return list(_pictures_below(place))
    if place and place.suffix.lower() == ".txt":
        return _listed_pictures(root, place, bases, defects)
    raise DataError(
        expected=f"in {shown(yaml)} paths of folders, or of lists (.txt), inside {shown(root)}",
        received=f"{key}: {shown(text[:200]) if isinstance(text, str) else type(text).__name__}, where there is none",
        do=f"write paths relative to {shown(yaml.name)}, or remove these lines: images/ is then split for you",
    )


def _listed_pictures(root: Path, file: Path, bases: Sequence[Path], defects: list[Defect]) -> list[Path]:
    found, name = [], file.relative_to(root).as_posix()
    for number, line in enumerate(read_lines(file, LARGEST_LIST), 1):
        if not (text := line.strip()):
            continue
        if (picture := _inside(root, [file.parent, *bases], text)) and picture.is_file():
            found.append(picture)
        else:
            defects.append(Defect(name, f"line {number} names no picture inside this data folder: {text}"))
    if not found:
        raise broken(file, "no line that names a picture inside the data folder", "write paths relative to the list")
    for folder in {picture.parent for picture in found}:
        image_files(folder)  # raises if two pictures have the same name
    return found


def _inside(root: Path, bases: Sequence[Path], text: str) -> Path | None:
    """Return an existing path relative to the first possible base; None if there is none inside the data folder."""
    tops = [os.path.normpath(root.absolute()), root.resolve()]
    for base, words in product(bases, dict.fromkeys((text, text.replace("\\", "/")))):  # as Windows writes them
        path = Path(os.path.normpath((base / words).absolute()))  # not resolved: a picture may be a link
        with suppress(OSError, ValueError):  # a name that is too long or invalid
            for top in tops:
                if path.is_relative_to(top) and path.exists():
                    return root / path.relative_to(top)
    return None


def _pictures_below(top: Path) -> Iterator[Path]:
    for folder, _ in walk(top):
        yield from image_files(folder).values()
