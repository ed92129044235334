"""Pascal VOC: an XML file for each image, and the splits in ImageSets/Main or in the names of folders.

The files are in Annotations/ beside JPEGImages/, or anywhere else: an XML file belongs to the image of its name in the
nearest folder, else to the image that its <filename> names.

VOC counts pixels from 1 and includes the last pixel, so a box becomes (xmin - 1, ymin - 1, xmax, ymax). If any box of a
set begins at 0, the set counts from 0, and its boxes are used as they are.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foveate.data.boxes.annotations import (
    LARGEST_LIST,
    AnnotatedImage,
    Annotation,
    BoxFormat,
    Defect,
    Reading,
    as_number,
    broken,
    files_in,
    is_empty,
    listed,
    name_on_one_line,
    read_bounded,
    read_lines,
    stated_size,
)
from foveate.data.boxes.places import ImageFinder, files_below, split_on_the_way
from foveate.data.images.decode import SUFFIXES, check_turned_image, shown
from foveate.data.splits import SPLITS, split_of
from foveate.errors import DataError, missing_extra
from foveate.text_files import decoded

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["VOC"]

_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.-]+)""")
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030"}  # has the same characters, and those that tools add to them
_HEAD = 2048  # bytes in which an annotation file says what it is
_LARGEST = 4 << 20  # bytes: about 15,000 objects


def _recognises(root: Path) -> bool:
    return any(map(_is_annotation, files_below(root, {".xml"})))


def _is_annotation(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return b"<annotation" in head.replace(b"\0", b"")  # also in UTF-16


def _read(root: Path, _named: Path | None = None) -> Reading:
    """Read every annotation file; the classes are all class names in them.

    Raises:
        DataError: a file cannot be used; the message names it.
        UsageError: defusedxml is not installed.
    """
    finder, files = ImageFinder(root), _annotation_files(root)
    found = {file: finder.of_annotation(file) for file in files}
    for file in (file for file, image in found.items() if image is None):
        found[file] = named if (named := _named_image(finder, file)) not in found.values() else None
    folders = listed(dict.fromkeys(f"{file.parent.relative_to(root).as_posix()}/" for file in files))
    defects = [
        Defect(_name(root, file), "has no image of its name or its <filename>")
        for file, image in found.items()
        if image is None
    ]
    taken = {image for image in found.values() if image is not None}
    beside = {image for folder in {image.parent for image in taken} for image in files_in(folder, SUFFIXES)}
    defects += [Defect(_name(root, image), f"has no file in {folders}") for image in sorted(beside - taken)]
    images = {file: _annotated(root, file, image, defects) for file, image in found.items() if image is not None}
    zero = next(
        (annotated.file for annotated in images.values() if any(map(_begins_at_0, annotated.annotations))), None
    )
    if zero is None:
        images = {
            file: replace(annotated, annotations=[*map(_from_0, annotated.annotations)])
            for file, annotated in images.items()
        }
    classes = sorted({annotation.name for annotated in images.values() for annotation in annotated.annotations})
    splits = _splits(root, images, {image.stem for image in beside} | {file.stem for file in files})
    notes = []
    if zero:
        notes.append(f"a box in {shown(zero)} begins at 0, so this set counts pixels from 0, not from 1 as VOC does")
    if left_out := len(images) - sum(map(len, splits.values())):
        notes.append(f"images that are in no split, left out: {left_out}")
    return Reading(tuple(classes), splits, defects, notes)


def _annotation_files(root: Path) -> list[Path]:
    """Return the XML files of the folders that hold annotations."""
    files = list(files_below(root, {".xml"}))
    folders = {file.parent for file in files if _is_annotation(file)}
    return [file for file in files if file.parent in folders]


def _named_image(finder: ImageFinder, file: Path) -> Path | None:
    """Return the image that <filename> names, with its suffix or without."""
    name = "" if is_empty(file) else _parsed(file).findtext("filename", "").strip()
    return finder.named(file, name)


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _splits(root: Path, images: Mapping[Path, AnnotatedImage], known: set[str]) -> dict[str, list[AnnotatedImage]]:
    """Return the images of each split: by lists, else by the names of folders, else all as one set.

    VOC2007/ and VOC2012/ each have lists of their own; their splits are joined.
    """
    joined: dict[str, list[AnnotatedImage]] = {}
    for folder in dict.fromkeys(file.parent.parent for file in images if file.parent != root):
        if lists := _lists(folder / "ImageSets" / "Main", known):
            own = {file: annotated for file, annotated in images.items() if file.parent.parent == folder}
            by_name = {file.stem: annotated for file, annotated in {**images, **own}.items()}
            by_name |= {Path(annotated.path).stem: annotated for annotated in own.values()}
            for split, names in lists.items():
                joined.setdefault(split, []).extend(by_name[name] for name in names if name in by_name)
    if joined:
        return joined
    parts: dict[str, list[AnnotatedImage]] = {}
    for file, annotated in images.items():
        parts.setdefault(split_on_the_way(root, file) or "", []).append(annotated)
    if named := {split: parts[split] for split in SPLITS if split in parts}:
        return named
    return {"": [*images.values()]}


def _annotated(root: Path, file: Path, image: Path, defects: list[Defect]) -> AnnotatedImage:
    size, orientation = check_turned_image(image)
    path, name = _name(root, image), _name(root, file)
    if is_empty(file):
        return AnnotatedImage(path, name, size, (), None, orientation)
    tree = _parsed(file)
    width, height = (as_number(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
    said = stated_size(width, height)
    return AnnotatedImage(path, name, size, tuple(_annotations(name, tree, defects)), said, orientation)


def _parsed(path: Path) -> "Element":
    """Return the XML tree of a file, which must not declare entities or refer to other files."""
    try:
        from defusedxml.ElementTree import fromstring
    except ImportError:
        raise missing_extra("defusedxml", "detect") from None
    text = _text(path)
    try:
        tree = fromstring(text, forbid_dtd=True)
    except Exception as error:  # ParseError, defusedxml's own errors, and ValueError for odd characters
        raise broken(path, f"content that is not plain XML ({type(error).__name__}: {error})") from None
    if tree.tag != "annotation":
        raise broken(path, f"<{tree.tag}> at the beginning, where VOC has <annotation>")
    return tree


def _text(path: Path) -> str:
    """Return the text of an XML file, in the encoding of its mark or declaration, else in UTF-8."""
    content = read_bounded(path, _LARGEST)
    declared = _DECLARED.match(content)
    if declared is None or (encoding := declared[1].decode().lower()) in ("utf-8", "utf8", "utf-16"):
        return decoded(content, path)
    try:
        return content.decode(_WIDER.get(encoding, encoding))
    except (LookupError, UnicodeError):
        raise broken(
            path, f"bytes that are not {encoding}, the encoding in its first line", "save it as UTF-8, and say so there"
        ) from None


def _annotations(file: str, tree: "Element", defects: list[Defect]) -> Iterator[Annotation]:
    """Yield the boxes with the sides that the file gives; an object without a box or a name is a defect."""
    for k, thing in enumerate(tree.findall("object"), 1):
        place = f"object {k}"
        sides = [thing.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        name = name_on_one_line(thing.findtext("name"))
        if name is None or None in sides:
            lacks = "no usable name" if name is None else "no <bndbox> with xmin, ymin, xmax and ymax"
            defects.append(Defect(file, f"{place} has {lacks}"))
            continue
        left, top, right, bottom = (as_number(side or "") for side in sides)
        difficult = thing.findtext("difficult", "0").strip() == "1"
        yield Annotation(place, name, (left, top, right, bottom), difficult=difficult)


def _begins_at_0(annotation: Annotation) -> bool:
    left, top, right, bottom = annotation.box
    return (left == 0 or top == 0) and left < right < math.inf and top < bottom < math.inf  # four zeros are not a box


def _from_0(annotation: Annotation) -> Annotation:
    left, top, right, bottom = annotation.box
    # xmin == xmax stays an empty box, although VOC would count one pixel: it is probably not an object
    return replace(annotation, box=(left - (right > left), top - (bottom > top), right, bottom))


def _lists(folder: Path, known: set[str]) -> dict[str, list[str]]:
    """Return the names in the list of each split; trainval is used as train if there is no train."""
    paths: dict[str, Path] = {}
    for path in files_in(folder, {".txt"}):
        stem = path.stem.lower()
        if (split := split_of(stem) or stem) not in (*SPLITS, "trainval"):
            continue
        if is_empty(path):
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
                    expected=f"each image once in the lists of {shown(folder)}",
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


VOC = BoxFormat("VOC", "XML files of <annotation>, as Annotations/*.xml beside JPEGImages/ (VOC)", _recognises, _read)
