"""COCO: JSON files with images, annotations and categories, and the images anywhere in the folder.

The usual names are annotations/instances_<split>.json, <split>.json, <split>/_annotations.coco.json and result.json.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from foveate.data.boxes.annotations import (
    AnnotatedImage,
    Annotation,
    BoxFormat,
    Defect,
    Reading,
    broken,
    class_name,
    files_in,
    listed,
    read_text,
    stated_size,
)
from foveate.data.boxes.places import ImageFinder, files_below, split_of_list
from foveate.data.images.decode import SUFFIXES, check_turned_image, shown
from foveate.data.splits import SPLIT_NAMES
from foveate.errors import DataError

__all__ = ["COCO"]

Id: TypeAlias = int | str

_LARGEST = 1 << 30  # bytes; COCO's own files are half as large
_ROBOFLOW = "_annotations.coco"
_LONGEST_ID = 18  # digits of a number, characters of a text
_LARGEST_AREA = 1e10  # square pixels: COCO's evaluation ignores larger objects
_NAME = re.compile(r"(?:instances_?)?(train|val|valid|validation|test|default|annotations)?(20\d\d)?")


def _recognises(root: Path) -> bool:
    return bool(_files(root))


def _read(root: Path, named: Path | None = None) -> Reading:
    """Read every annotation file, or the one that is `named`; classes are identified by name, not by number.

    Raises:
        DataError: a file cannot be used; the message names it.
    """
    defects: list[Defect] = []
    classes: set[str] = set()
    splits: dict[str, list[AnnotatedImage]] = {}
    owner: dict[str, str] = {}
    files, finder = {_split_of(root, named): named} if named else _files(root), ImageFinder(root)
    for split, path in files.items():
        content = _parsed(path)
        names = _categories(path, content)
        classes |= set(names.values())
        splits[split] = list(_images(root, path, content, names, finder, defects))
        for annotated in splits[split]:
            if annotated.path in owner:
                raise broken(
                    path,
                    f"the image {annotated.path} once more, after {owner[annotated.path]}",
                    "list every image once",
                )
            owner[annotated.path] = annotated.file
    return Reading(tuple(sorted(classes)), splits, defects, [*_unread(root, files), *_unlisted(root, owner)])


def _files(root: Path) -> dict[str, Path]:
    """Return the annotation file of each split, or of "" for the whole set; a usual name goes before other names."""
    usual: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for path in files_below(root, {".json"}):
        usually = _NAME.fullmatch(path.stem) is not None or path.stem == _ROBOFLOW
        found = usual if usually else others
        if not (usually and _is_at_its_usual_place(root, path)) and not _has_lists(path):
            continue
        split = _split_of(root, path)
        if split in found:
            raise DataError(
                expected=f"one annotation file for {split or 'the whole set'} in {shown(root)}",
                received=f"{shown(found[split].relative_to(root))} and {shown(path.relative_to(root))}",
                do="move one of them away",
            )
        found[split] = path
    found = {**others, **usual}
    return {split: path for split, path in found.items() if split} or found


def _is_at_its_usual_place(root: Path, path: Path) -> bool:
    """Return whether a file of a usual name is where COCO has it; its content is then checked when it is read."""
    return path.stem == _ROBOFLOW or path.parent in (root, root / "annotations")


def _has_lists(path: Path) -> bool:
    """Return whether a JSON file has the three lists of COCO, as far as its bytes tell."""
    with path.open("rb") as file:
        content = file.read(_LARGEST).replace(b"\0", b"")
    return all(f'"{key}"'.encode() in content for key in ("images", "annotations", "categories"))


def _split_of(root: Path, path: Path) -> str:
    """Return the split in the name of a file or of its folders, "" for the whole set."""
    match = _NAME.fullmatch(path.stem)
    named = SPLIT_NAMES.get(match[1] or "") if match else None
    return named or split_of_list(root, path) or ""


def _parsed(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, _LARGEST))
    except (ValueError, RecursionError) as error:
        raise broken(path, f"content that is not JSON ({type(error).__name__}: {error})", "correct the file") from None
    if not isinstance(content, dict):
        expected = "an object with images, annotations and categories"
        raise broken(path, f"a {type(content).__name__} instead of {expected}", "correct the file")
    return content


def _categories(path: Path, content: dict[str, Any]) -> dict[Id, str]:
    names: dict[Id, str] = {}
    entries = list(_entries(path, content, "categories"))
    for k, entry in entries:
        if _is_root(entry, entries, content):
            continue
        number, name = _id(path, f"category {k}", entry, "id"), class_name(path, f"category {k}", entry.get("name"))
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


def _images(
    root: Path, path: Path, content: dict[str, Any], names: Mapping[Id, str], finder: ImageFinder, defects: list[Defect]
) -> Iterator[AnnotatedImage]:
    file = path.relative_to(root).as_posix()
    entries: dict[Id, dict[str, Any]] = {}
    for k, entry in _entries(path, content, "images"):
        if (number := _id(path, f"image {k}", entry, "id")) in entries:
            raise broken(path, f"two images with id {number}", "give every image its own id")
        entries[number] = entry
    annotations: dict[Id, list[Annotation]] = {number: [] for number in entries}
    for k, entry in _entries(path, content, "annotations"):
        place = f"annotation {k}"
        owner = _id(path, place, entry, "image_id")
        annotation = _annotation(path, place, entry, names)
        if isinstance(annotation, str):
            defects.append(Defect(file, f"{place} {annotation}"))
        elif owner in annotations:
            annotations[owner].append(annotation)
        else:
            defects.append(Defect(file, f"{place} belongs to image {owner}, which is not listed"))
    folders = _image_folders(root, path)
    for number, entry in entries.items():
        image = _found(entry, folders, finder, path)
        if image is None:
            defects.append(Defect(file, _missing(entry.get("file_name"))))
            continue
        size, orientation = check_turned_image(image)
        said = stated_size(entry.get("width"), entry.get("height"))
        yield AnnotatedImage(
            image.relative_to(root).as_posix(), file, size, tuple(annotations[number]), said, orientation
        )


def _missing(name: object) -> str:
    return f"the image {name[:200]} is missing" if isinstance(name, str) else "an image has no file_name"


def _annotation(path: Path, place: str, entry: dict[str, Any], names: Mapping[Id, str]) -> Annotation | str:
    """Return the box of an annotation, or what is wrong with the annotation."""
    kind, box = _id(path, place, entry, "category_id"), entry.get("bbox") or _around(entry.get("segmentation"))
    if kind not in names:
        return f"has the category {kind}, which is not in the list of categories"
    if not (isinstance(box, list) and len(box) == 4):
        return "has neither a bbox of four numbers nor a polygon"
    x, y, width, height = map(_side, box)
    crowd, difficult = (entry.get(flag) in (1, True) for flag in ("iscrowd", "ignore"))
    return Annotation(place, names[kind], (x, y, x + width, y + height), crowd, difficult, _area(entry.get("area")))


def _around(polygons: Any) -> list[float] | None:
    """Return the smallest bbox around the polygons [x, y, x, y, ...] of an annotation; None without any."""
    if not (isinstance(polygons, list) and polygons and all(isinstance(one, list) for one in polygons)):
        return None
    xs, ys = ([_side(value) for one in polygons for value in one[start::2]] for start in (0, 1))
    if not xs or not ys or not all(map(math.isfinite, (*xs, *ys))):
        return None
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


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


def _id(path: Path, place: str, entry: dict[str, Any], key: str) -> Id:
    """Return an id as a whole number, or as text where it is no number: tools write 7, 7.0, "7" and "p7"."""
    value = entry.get(key)
    if isinstance(value, str) and value.strip():
        return int(value) if value.isdecimal() and len(value) < _LONGEST_ID else value[:_LONGEST_ID]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 1 << 63:
        raise broken(path, f"{place} without a whole number or a text as {key}", "correct the file")
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


def _found(entry: dict[str, Any], folders: list[Path], finder: ImageFinder, path: Path) -> Path | None:
    """Return the image that an entry names: at its path, else the only image of its file name in the data folder.

    Tools write paths of the machine that they ran on, also with the separators of Windows.
    """
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        return None
    place = PurePosixPath(name.replace("\\", "/"))
    for folder in () if place.is_absolute() or ".." in place.parts else folders:
        with suppress(OSError, ValueError):  # a name that is too long or invalid
            if (folder / place).is_file():
                return folder / place
    return finder.named(path, name)


def _unread(root: Path, files: Mapping[str, Path]) -> Iterator[str]:
    names = [
        shown(path.relative_to(root).as_posix()) for path in files_below(root, {".json"}) if path not in files.values()
    ]
    if names:
        yield f"JSON files that were not read, as another one is used or they list no boxes: {listed(names)}"


def _unlisted(root: Path, owner: Mapping[str, str]) -> Iterator[str]:
    folders = {(root / path).parent for path in owner}
    images = {path.relative_to(root).as_posix() for folder in folders for path in files_in(folder, SUFFIXES)}
    if left_out := len(images - owner.keys()):
        yield f"images that no annotation file lists, left out: {left_out}"


COCO = BoxFormat(
    "COCO",
    "a JSON file of images, annotations and categories, as annotations/instances_<split>.json (COCO)",
    _recognises,
    _read,
    suffixes=(".json",),
)
