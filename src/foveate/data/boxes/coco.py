"""COCO: annotations/instances_<split>.json, <split>.json or <split>/_annotations.coco.json, and folders of images."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from foveate.data.boxes.annotations import (
    BoxFormat,
    Defect,
    Labelled,
    Mark,
    Reading,
    broken,
    class_name,
    files_in,
    listed,
    read_text,
)
from foveate.data.images.decode import SUFFIXES, check_image, shown
from foveate.data.splits import SPLIT_NAMES
from foveate.errors import DataError

__all__ = ["COCO"]

_LARGEST = 1 << 30  # bytes; COCO's own files are half as large
_ROBOFLOW = "_annotations.coco"
_LARGEST_AREA = 1e10  # square pixels: COCO's evaluation ignores larger objects
_NAME = re.compile(r"(?:instances_?)?(train|val|valid|validation|test|default|annotations)?(20\d\d)?")


def _recognises(root: Path) -> bool:
    return bool(_files(root))


def _read(root: Path) -> Reading:
    """Read every annotation file; classes are identified by name, not by number.

    Raises:
        DataError: a file cannot be used; the message names it.
    """
    defects: list[Defect] = []
    classes: set[str] = set()
    splits: dict[str, list[Labelled]] = {}
    owner: dict[str, str] = {}
    files = _files(root)
    for split, path in files.items():
        content = _parsed(path)
        names = _categories(path, content)
        classes |= set(names.values())
        splits[split] = list(_pictures(root, path, content, names, defects))
        for labelled in splits[split]:
            if labelled.path in owner:
                raise broken(
                    path, f"the image {labelled.path} once more, after {owner[labelled.path]}", "list every image once"
                )
            owner[labelled.path] = labelled.file
    return Reading(tuple(sorted(classes)), splits, defects, [*_unread(root, files), *_unlisted(root, owner)])


def _files(root: Path) -> dict[str, Path]:
    """Return the annotation file of each split, or of "" for the whole set."""
    found: dict[str, Path] = {}
    for path in _json_files(root):
        if (split := _split_of(path)) is None:
            continue
        if split in found:
            raise DataError(
                expected=f"one annotation file for {split or 'the whole set'} in {shown(root)}",
                received=f"{shown(found[split].relative_to(root))} and {shown(path.relative_to(root))}",
                do="move one of them away",
            )
        found[split] = path
    return {split: path for split, path in found.items() if split} or found


def _json_files(root: Path) -> list[Path]:
    """Return the JSON files that may hold annotations; Roboflow puts them beside the images of a split."""
    inner = [path for alias in SPLIT_NAMES for path in files_in(root / alias, {".json"}) if path.stem == _ROBOFLOW]
    return [*files_in(root / "annotations", {".json"}), *files_in(root, {".json"}), *inner]


def _split_of(path: Path) -> str | None:
    """Return the split in the name of a file, "" for the whole set, None if it is not a name of annotations."""
    if path.stem == _ROBOFLOW:
        return SPLIT_NAMES.get(path.parent.name, "")
    match = _NAME.fullmatch(path.stem)
    return SPLIT_NAMES.get(match[1] or "", "") if match else None


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, _LARGEST))
    except (ValueError, RecursionError) as error:
        raise broken(path, f"content that is not JSON ({type(error).__name__}: {error})", "correct the file") from None
    if not isinstance(content, dict):
        expected = "an object with images, annotations and categories"
        raise broken(path, f"a {type(content).__name__} instead of {expected}", "correct the file")
    return content


def _categories(path: Path, content: dict[str, Any]) -> dict[int, str]:
    names: dict[int, str] = {}
    entries = list(_entries(path, content, "categories"))
    for k, entry in entries:
        if _is_root(entry, entries, content):
            continue
        number, name = _whole(path, f"category {k}", entry, "id"), class_name(path, f"category {k}", entry.get("name"))
        if number in names or name in names.values():
            raise broken(path, f"category {number}, {name!r}, twice", "give every category its own id and name")
        names[number] = name
    return names


def _is_root(entry: dict[str, Any], entries: Sequence[tuple[int, dict[str, Any]]], content: dict[str, Any]) -> bool:
    """Return whether a category is only a parent of the others, as Roboflow adds, even with the name of one of them."""
    if entry.get("supercategory") != "none" or all(
        other.get("supercategory") != entry.get("name") for _, other in entries
    ):
        return False
    annotations = content.get("annotations")
    return isinstance(annotations, list) and all(
        isinstance(one, dict) and one.get("category_id") != entry.get("id") for one in annotations
    )


def _pictures(
    root: Path, path: Path, content: dict[str, Any], names: Mapping[int, str], defects: list[Defect]
) -> Iterator[Labelled]:
    file = path.relative_to(root).as_posix()
    images: dict[int, dict[str, Any]] = {}
    for k, entry in _entries(path, content, "images"):
        if (number := _whole(path, f"image {k}", entry, "id")) in images:
            raise broken(path, f"two images with id {number}", "give every image its own id")
        images[number] = entry
    marks: dict[int, list[Mark]] = {number: [] for number in images}
    for k, entry in _entries(path, content, "annotations"):
        owner = _whole(path, f"annotation {k}", entry, "image_id")
        mark = _mark(path, f"annotation {k}", entry, names)
        if owner in marks:
            marks[owner].append(mark)
        else:
            defects.append(Defect(file, f"{mark.place} belongs to image {owner}, which is not listed"))
    folders = _image_folders(root, path)
    for number, entry in images.items():
        image = _found(path, entry, folders)
        if image is None:
            defects.append(Defect(file, f"the image {entry['file_name'][:200]} is missing"))
            continue
        size, said = check_image(image), (entry.get("width"), entry.get("height"))
        if all(isinstance(side, int) and side > 0 for side in said) and said != size:
            defects.append(
                Defect(
                    file, f"says {said[0]} x {said[1]} pixels of {entry['file_name']}, which has {size[0]} x {size[1]}"
                )
            )
        yield Labelled(image.relative_to(root).as_posix(), file, size, tuple(marks[number]))


def _mark(path: Path, place: str, entry: dict[str, Any], names: Mapping[int, str]) -> Mark:
    kind, box = _whole(path, place, entry, "category_id"), entry.get("bbox")
    if kind not in names:
        raise broken(
            path,
            f"in {place} category {kind}, which is not in the list of categories",
            "add it, or remove the annotation",
        )
    if not (isinstance(box, list) and len(box) == 4):
        raise broken(path, f"{place} without a bbox of four numbers", "give x, y, width and height in pixels")
    x, y, width, height = map(_side, box)
    crowd, difficult = (entry.get(flag) in (1, True) for flag in ("iscrowd", "ignore"))
    return Mark(place, names[kind], (x, y, x + width, y + height), crowd, difficult, _area(entry.get("area")))


def _side(value: Any) -> float:
    """Return a number of a box, NaN for any other value."""
    try:
        return float(value) if _is_number(value) else math.nan
    except OverflowError:  # a whole number too large for a float
        return math.inf


def _area(value: Any) -> float | None:
    """Return the area of an outline in square pixels, by which COCO groups objects; None if it is not an area."""
    return float(value) if _is_number(value) and 0 <= value < _LARGEST_AREA else None


def _entries(path: Path, content: dict[str, Any], key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects in one of the lists of the file, numbered from 1."""
    entries = content.get(key)
    if not isinstance(entries, list):
        raise broken(path, f"no list called {key}", "correct the file")
    for k, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            raise broken(path, f"a {type(entry).__name__} as number {k} of {key}", "correct the file")
        yield k, entry


def _whole(path: Path, place: str, entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise broken(path, f"{place} without a whole number as {key}", "correct the file")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _image_folders(root: Path, path: Path) -> list[Path]:
    """Return the folders where the images of an annotation file may be, the most likely first."""
    match = _NAME.fullmatch(path.stem)
    split, year = (match[1] or "", match[2] or "") if match else ("", "")
    names = dict.fromkeys([split + year, split])
    folders = [
        *(root / "images" / name for name in names if name),
        *(root / name for name in names if name),
        root / "images",
    ]
    return [folder for folder in dict.fromkeys([path.parent, *folders, root]) if folder.is_dir()]


def _found(path: Path, entry: dict[str, Any], folders: list[Path]) -> Path | None:
    name = entry.get("file_name")
    if not isinstance(name, str) or not name or PurePosixPath(name).is_absolute() or ".." in name.split("/"):
        raise broken(
            path,
            f"an image without a file_name inside the folder: {str(name)[:100]}",
            "name its file relative to the images",
        )
    for folder in folders:
        with suppress(OSError, ValueError):  # a name that is too long or invalid
            if (folder / name).is_file():
                return folder / name
    return None


def _unread(root: Path, files: Mapping[str, Path]) -> Iterator[str]:
    names = [shown(path.relative_to(root).as_posix()) for path in _json_files(root) if path not in files.values()]
    if names:
        yield f"JSON files skipped because their names are neither instances_<split> nor <split>: {listed(names)}"


def _unlisted(root: Path, owner: Mapping[str, str]) -> Iterator[str]:
    folders = {(root / path).parent for path in owner}
    images = {path.relative_to(root).as_posix() for folder in folders for path in files_in(folder, SUFFIXES)}
    if left_out := len(images - owner.keys()):
        yield f"images that no annotation file lists, left out: {left_out}"


COCO = BoxFormat("COCO", "annotations/instances_<split>.json or <split>.json (COCO)", _recognises, _read)
