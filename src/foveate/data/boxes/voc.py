"""Pascal VOC: Annotations/*.xml beside JPEGImages/, and the splits in ImageSets/Main.

VOC counts pixels from 1 and includes the last pixel, so a box becomes (xmin - 1, ymin - 1, xmax, ymax). If any box of a
set begins at 0, the set counts from 0, and its boxes are used as they are.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.data.boxes.annotations import (
    LARGEST_LIST,
    BoxFormat,
    Defect,
    Labelled,
    Mark,
    Reading,
    as_number,
    broken,
    by_stem,
    class_name,
    files_in,
    folders_in,
    image_files,
    listed,
    read_bounded,
    read_lines,
)
from foveate.data.images.decode import check_image, shown
from foveate.data.splits import SPLIT_NAMES, SPLITS
from foveate.errors import DataError, missing_extra

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["VOC"]

_LARGEST = 4 << 20  # bytes: about 15,000 objects


def _recognises(root: Path) -> bool:
    return (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()


def _read(root: Path) -> Reading:
    """Read every annotation file; the classes are all class names in them.

    Raises:
        DataError: a file cannot be used; the message names it.
        UsageError: defusedxml is not installed.
    """
    images = image_files(root / "JPEGImages")
    files = by_stem(files_in(root / "Annotations", {".xml"}))
    defects = [
        Defect(f"JPEGImages/{images[name].name}", "has no file in Annotations/")
        for name in images.keys() - files.keys()
    ]
    defects += [
        Defect(f"Annotations/{files[name].name}", "has no image in JPEGImages/")
        for name in files.keys() - images.keys()
    ]
    pictures = {name: _labelled(root, files[name], images[name], defects) for name in images if name in files}
    zero = next((labelled.file for labelled in pictures.values() if any(map(_begins_at_0, labelled.marks))), None)
    if zero is None:
        pictures = {
            name: replace(labelled, marks=[*map(_from_0, labelled.marks)]) for name, labelled in pictures.items()
        }
    classes = sorted({mark.name for labelled in pictures.values() for mark in labelled.marks})
    lists = _lists(root / "ImageSets" / "Main", images.keys() | files.keys())
    splits = {split: [pictures[name] for name in names if name in pictures] for split, names in lists.items()} or {
        "": [*pictures.values()]
    }
    notes = []
    if zero:
        notes.append(f"a box in {shown(zero)} begins at 0, so this set counts pixels from 0, not from 1 as VOC does")
    if left_out := len(pictures) - sum(map(len, splits.values())):
        notes.append(f"pictures that no list in ImageSets/Main names, left out: {left_out}")
    if folders := [*folders_in(root / "Annotations"), *folders_in(root / "JPEGImages")]:
        notes.append(f"folders not read: {listed(shown(path.relative_to(root).as_posix()) for path in folders)}")
    return Reading(tuple(classes), splits, defects, notes)


def _labelled(root: Path, file: Path, image: Path, defects: list[Defect]) -> Labelled:
    tree, size, name = _parsed(file), check_image(image), file.relative_to(root).as_posix()
    said = tuple(tree.findtext(f"size/{side}", "").strip() for side in ("width", "height"))
    if all(side.isdecimal() for side in said) and said != tuple(map(str, size)) and "0" not in said:
        defects.append(Defect(name, f"says {said[0]} x {said[1]} pixels, the image has {size[0]} x {size[1]}"))
    return Labelled(image.relative_to(root).as_posix(), name, size, tuple(_marks(file, tree)))


def _parsed(path: Path) -> "Element":
    """Return the XML tree of a file, which must not declare entities or refer to other files."""
    try:
        from defusedxml.ElementTree import fromstring
    except ImportError:
        raise missing_extra("defusedxml", "detect") from None
    content = read_bounded(path, _LARGEST)
    try:
        tree = fromstring(content, forbid_dtd=True)
    except Exception as error:  # ParseError, defusedxml's own errors, and ValueError or LookupError for the encoding
        raise broken(path, f"content that is not plain XML ({type(error).__name__}: {error})") from None
    if tree.tag != "annotation":
        raise broken(path, f"<{tree.tag}> at the beginning, where VOC has <annotation>")
    return tree


def _marks(path: Path, tree: "Element") -> Iterator[Mark]:
    """Yield the boxes with the sides that the file gives."""
    for k, thing in enumerate(tree.findall("object"), 1):
        name = class_name(path, f"object {k}", thing.findtext("name"))
        left, top, right, bottom = (_number(path, k, thing, side) for side in ("xmin", "ymin", "xmax", "ymax"))
        yield Mark(
            f"object {k}", name, (left, top, right, bottom), difficult=thing.findtext("difficult", "0").strip() == "1"
        )


def _number(path: Path, k: int, thing: "Element", side: str) -> float:
    if (text := thing.findtext(f"bndbox/{side}")) is None:
        raise broken(path, f"object {k} without <{side}> in a <bndbox>")
    return as_number(text)


def _begins_at_0(mark: Mark) -> bool:
    left, top, right, bottom = mark.box
    return (left == 0 or top == 0) and left < right < math.inf and top < bottom < math.inf  # four zeros are not a box


def _from_0(mark: Mark) -> Mark:
    left, top, right, bottom = mark.box
    # xmin == xmax stays an empty box, although VOC would count one pixel: it is probably not an object
    return replace(mark, box=(left - (right > left), top - (bottom > top), right, bottom))


def _lists(folder: Path, known: set[str]) -> dict[str, list[str]]:
    """Return the names in the list of each split; trainval is used as train if there is no train."""
    paths: dict[str, Path] = {}
    for path in files_in(folder, {".txt"}):
        stem = path.stem.lower()
        if (split := SPLIT_NAMES.get(stem, stem)) not in (*SPLITS, "trainval"):
            continue
        if split in paths:
            raise broken(folder, f"{paths[split].name} and {path.name} for one split", "remove one of them")
        paths[split] = path
    if "trainval" in paths:
        paths.setdefault("train", paths["trainval"])
    lists = {split: list(_names(paths[split], known)) for split in SPLITS if split in paths}
    owner: dict[str, str] = {}
    for split, names in lists.items():
        for name in names:
            if name in owner:
                raise DataError(
                    expected=f"each picture once in the lists of {shown(folder)}",
                    received=f"{shown(name)} in {owner[name]} and in {paths[split].name}",
                    do="remove one of the two lines",
                )
            owner[name] = paths[split].name
    return lists


def _names(path: Path, known: set[str]) -> Iterator[str]:
    for number, line in enumerate(read_lines(path, LARGEST_LIST), 1):
        if name := line.strip():
            name = name if name in known else name.split()[0]  # VOC's lists of one class have 1 or -1 after the name
            if name not in known:
                raise broken(
                    path,
                    f"line {number} with {name!r}, which is neither an image nor an annotation",
                    "correct or remove the line",
                )
            yield name


VOC = BoxFormat("VOC", "Annotations/*.xml beside JPEGImages/ (VOC)", _recognises, _read)
