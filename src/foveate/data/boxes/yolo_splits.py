"""The splits of a YOLO folder, by data.yaml and by its folders, and the folders of the labels."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice, product
from pathlib import Path
from typing import Any

from foveate.data.boxes.annotations import (
    LARGEST_LIST,
    Defect,
    broken,
    files_in,
    folders_in,
    image_files,
    is_empty,
    listed,
    read_lines,
)
from foveate.data.boxes.places import files_below, folders_below, in_any_case, split_on_the_way
from foveate.data.images.decode import SUFFIXES, shown
from foveate.data.splits import SPLIT_NAMES, SPLITS, split_of
from foveate.errors import DataError

__all__ = [
    "flat_folders",
    "has_folders",
    "is_label_file",
    "label_folders",
    "left_out",
    "mirrored",
    "split_images",
]

_LOOKED_AT = 5  # label files of a folder that are looked at, as some are empty
_LONGEST_LINE = 10_000  # bytes


def has_folders(root: Path) -> bool:
    """Return whether there are folders of images beside folders of labels, or images beside their label files."""
    return _has_images_and_labels(root) or bool(_split_folders(root)) or bool(flat_folders(root))


def _has_images_and_labels(root: Path) -> bool:
    return all(in_any_case(root, name).is_dir() for name in ("images", "labels"))


def flat_folders(root: Path) -> dict[str, list[Path]]:
    """Return the folders that hold images beside their label files, by split, "" for those that name none."""
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(path.parent for path in files_below(root, SUFFIXES)):
        stems = {path.stem for path in files_in(folder, SUFFIXES)}
        labels = (path for path in files_in(folder, {".txt"}) if path.stem in stems)
        if any(map(_has_boxes, islice(labels, _LOOKED_AT))):
            found.setdefault(split_on_the_way(root, folder / "x") or "", []).append(folder)
    return found


def is_label_file(path: Path) -> bool:
    """Return whether a text file belongs to an image: not a list of classes or of images."""
    return path.name.lower() not in ("classes.txt", "train.txt", "val.txt", "valid.txt", "test.txt")


def _has_boxes(path: Path) -> bool:
    """Return whether the first line of a text file is a class and four numbers."""
    with path.open("rb") as file:
        words = file.readline(_LONGEST_LINE).split()
    return len(words) >= 5 and all(re.fullmatch(rb"[-+.\de]+", word) for word in words)


def split_images(root: Path, yaml: Path, content: Mapping[Any, Any], defects: list[Defect]) -> dict[str, list[Path]]:
    """Return the images of each split, or of "" without splits; missing listed images become defects.

    Raises:
        DataError: neither folders nor data.yaml give the images, data.yaml alone gives wrong paths, or two images
            in a folder have one name.
    """
    folders, missing = _split_folders(root), list[Defect]()
    try:
        named = _named_images(root, yaml, content, missing)
    except DataError:
        if not folders:
            raise
        named, missing = {}, []  # paths are often wrong after a folder was moved
    defects += missing
    taken = {image for part in named.values() for image in part}
    laid = {
        split: [image for place in places for image in _images_below(place) if image not in taken]
        for split, places in folders.items()
        if split not in named
    }
    if laid or named:
        return {split: {**laid, **named}[split] for split in SPLITS if split in laid or split in named}
    if _has_images_and_labels(root):
        return {"": list(_images_below(in_any_case(root, "images")))}
    if flat := flat_folders(root):
        splits = [name for name in SPLITS if name in flat] or [""]
        return {split: [image for folder in flat[split] for image in image_files(folder).values()] for split in splits}
    raise DataError(
        expected=f"images/ with labels/ in {shown(root)}, or the paths of images in {shown(yaml.name)}",
        received="neither",
        do="move the images into images/train/ and images/val/, and their labels into labels/train/ and labels/val/",
    )


def mirrored(root: Path, folder: Path, one: str = "images", other: str = "labels") -> Path:
    """Return the folder whose path has `other` for the last `one`; the same folder where its path has no `one`."""
    parts = folder.relative_to(root).parts
    last = next((k for k in reversed(range(len(parts))) if parts[k].lower() == one), None)
    return folder if last is None else in_any_case(root.joinpath(*parts[:last]), other, *parts[last + 1 :])


def label_folders(root: Path, splits: Mapping[str, Iterable[Path]]) -> list[Path]:
    """Return the sorted folders that hold labels and no images."""
    images = {image.parent for part in splits.values() for image in part}
    return sorted({*_all_below(root, "labels"), *(mirrored(root, folder) for folder in images)} - images)


def left_out(root: Path, splits: Mapping[str, Iterable[Path]]) -> Iterator[str]:
    """Yield notes on images that are in no split."""
    taken = {image for part in splits.values() for image in part}
    folders = sorted({*_all_below(root, "images"), *(image.parent for image in taken)})
    counts = {folder: sum(image not in taken for image in files_in(folder, SUFFIXES)) for folder in folders}
    if total := sum(counts.values()):
        places = listed(
            f"{shown(folder.relative_to(root).as_posix())}/: {count}" for folder, count in counts.items() if count
        )
        yield f"images that are in no split, left out: {total} ({places})"


def _split_folders(root: Path) -> dict[str, list[Path]]:
    """Return the folders of images of each split, such as images/train2017 or train/images, with labels."""
    found: dict[str, list[Path]] = {}
    inner, outer = folders_in(in_any_case(root, "images")), folders_in(root)
    for named, images in [*zip(inner, inner, strict=True), *((one, in_any_case(one, "images")) for one in outer)]:
        if (split := split_of(named.name)) and images.is_dir() and mirrored(root, images).is_dir():
            found.setdefault(split, []).append(images)
    return found


def _all_below(root: Path, name: str) -> Iterator[Path]:
    """Yield the folders called `name` in the folder and in those of splits, and every folder below them."""
    for top in (root, *(one for one in folders_in(root) if split_of(one.name))):
        yield from folders_below(in_any_case(top, name))


def _named_images(root: Path, yaml: Path, content: Mapping[Any, Any], defects: list[Defect]) -> dict[str, list[Path]]:
    """Return the images of each split for which data.yaml has paths of folders or of lists."""
    bases = [root / path, root] if isinstance(path := content.get("path"), str) else [root]
    found: dict[str, list[Path]] = {}
    owner: dict[Path, str] = {}
    for key, split in SPLIT_NAMES.items():
        for text in value if isinstance(value := content.get(key), list) else [value]:
            if text is None or text == "":
                continue
            found.setdefault(split, [])
            for image in _images_at(root, yaml, key, text, bases, defects):
                if image not in owner:
                    found[split].append(image)
                if owner.setdefault(image, split) != split:
                    received = f"{image.relative_to(root).as_posix()} in {owner[image]} and in {split}"
                    raise broken(yaml, received, "put each image into one split; a missing split is taken from train")
    return found


def _images_at(
    root: Path, yaml: Path, key: str, text: object, bases: Sequence[Path], defects: list[Defect]
) -> list[Path]:
    place = _inside(root, bases, text) if isinstance(text, str) else None
    if place and place.is_dir():
        return list(_images_below(place))
    if place and is_empty(place):
        return []
    if place and place.suffix.lower() == ".txt":
        return _listed_images(root, place, bases, defects)
    raise DataError(
        expected=f"in {shown(yaml)} paths of folders, or of lists (.txt), inside {shown(root)}",
        received=f"{key}: {shown(text[:200]) if isinstance(text, str) else type(text).__name__}, where there is none",
        do=f"write paths relative to {shown(yaml.name)}, or remove these lines: images/ is then split for you",
    )


def _listed_images(root: Path, file: Path, bases: Sequence[Path], defects: list[Defect]) -> list[Path]:
    found, name = [], file.relative_to(root).as_posix()
    for number, line in enumerate(read_lines(file, LARGEST_LIST), 1):
        if not (text := line.strip()):
            continue
        if (image := _inside(root, [file.parent, *bases], text)) and image.is_file():
            found.append(image)
        else:
            defects.append(Defect(name, f"line {number} names no image inside this data folder: {text}"))
    if not found:
        raise broken(file, "no line that names an image inside the data folder", "write paths relative to the list")
    for folder in {image.parent for image in found}:
        image_files(folder)  # raises if two images have the same name
    return found


def _inside(root: Path, bases: Sequence[Path], text: str) -> Path | None:
    """Return an existing path relative to the first possible base; None if there is none inside the data folder."""
    tops = [os.path.normpath(root.absolute()), root.resolve()]
    for words, base in product(_ends(text), bases):
        path = Path(os.path.normpath((base / words).absolute()))  # not resolved: an image may be a link
        with suppress(OSError, ValueError):  # a name that is too long or invalid
            for top in tops:
                if path.is_relative_to(top) and (place := in_any_case(root, *path.relative_to(top).parts)).exists():
                    return place
    return None


def _ends(text: str) -> Iterator[str]:
    """Yield a path as written, then as Windows writes it, then without its first folders.

    Paths often begin with a folder of the machine where they were written, such as data/ or /home/me/. What is left
    has a folder, unless it is a file: images/ alone may be another folder of that name.
    """
    yield text
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    yield text.replace("\\", "/")
    for start in range(1, len(parts)):
        if len(parts) - start > 1 or "." in parts[-1]:
            yield "/".join(parts[start:])


def _images_below(top: Path) -> Iterator[Path]:
    for folder in folders_below(top):
        yield from image_files(folder).values()
