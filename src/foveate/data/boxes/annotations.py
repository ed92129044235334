"""Images with boxes as a file describes them, and the checks that all formats share."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.data.images.decode import SUFFIXES, open_regular, shown
from foveate.errors import DataError
from foveate.text_files import decoded

__all__ = [
    "LARGEST_LIST",
    "LEAST_SIDE",
    "NO_LABELS",
    "AnnotatedImage",
    "Annotation",
    "BoxFormat",
    "Defect",
    "Group",
    "LabelledImage",
    "Reading",
    "as_number",
    "broken",
    "by_stem",
    "checked",
    "class_name",
    "files_in",
    "folders_in",
    "image_files",
    "is_empty",
    "listed",
    "name_on_one_line",
    "read_bounded",
    "read_lines",
    "read_text",
    "stated_size",
]

LARGEST_LIST = 64 << 20  # bytes of a list of images: about a million paths

NO_LABELS = "has no label file"  # the defect of an image, which may name the folder of the labels after it

LEAST_SIDE = 1.0  # pixels of the input: smaller boxes teach nothing

# pixels: a box may exceed the image by this much, as some formats count from 1 or round to whole pixels
_ROUNDING = 1.0

_LONGEST_NAME = 100  # characters of a class name, which must fit into tables and onto boxes


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image and its ground truth.

    `path` is relative to the data folder, with `/`; `size` (width, height) in pixels as displayed; `boxes` float32 (M,
    4), xyxy in pixels, half-open; `labels` int64 (M,); `crowd` and `difficult` bool (M,) mark objects that count
    neither as found nor as missed; `areas` float64 (M,), square pixels, are those of the outlines, None if the file
    has only boxes.
    """

    path: str
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]
    areas: NDArray[np.float64] | None = None

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """Return which objects are crowd or difficult, bool (M,)."""
        return self.crowd | self.difficult

    @property
    def objects(self) -> tuple[NDArray[Any], ...]:
        """Return everything that the file says about the objects, as arrays."""
        return self.boxes, self.labels, self.crowd, self.difficult, *(() if self.areas is None else (self.areas,))

    @classmethod
    def plain(
        cls, path: str, size: tuple[int, int], boxes: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> "LabelledImage":
        """Return an image without crowd or difficult boxes."""
        none = np.zeros(len(labels), bool)
        return cls(path, size, boxes, labels, none, none)


class Group(StrEnum):
    """What became of a defective box or image."""

    LEFT_OUT = "left out"
    CUT = "cut at the border of the image"
    DOUBTFUL = "kept, but doubtful"


@dataclass(frozen=True, order=True)
class Defect:
    """A defect of one box or image, and what became of it; `file` is relative to the data folder."""

    file: str
    what: str
    group: Group = Group.LEFT_OUT

    def __str__(self) -> str:
        return f"{shown(self.file)}: {shown(self.what)[:200]}"


@dataclass(frozen=True)
class Annotation:
    """One unchecked box of a file: place in the file, name of its class, xyxy in half-open pixels.

    `area` is that of its outline, None if the file gives none.
    """

    place: str
    name: str
    box: tuple[float, float, float, float]
    crowd: bool = False
    difficult: bool = False
    area: float | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """One image and its boxes: `path` of the image and `file` of the boxes, relative to the data folder.

    `size` is the (width, height) of the image itself as it is shown, `orientation` its EXIF orientation; `stated_size`
    is the size in the file of the boxes, None where it gives none.
    """

    path: str
    file: str
    size: tuple[int, int]
    annotations: Sequence[Annotation]
    stated_size: tuple[int, int] | None = None
    orientation: int = 1


@dataclass(frozen=True)
class Reading:
    """The content of a folder: sorted class names, images of each split ("" without splits), defects, notes."""

    classes: tuple[str, ...]
    splits: Mapping[str, Sequence[AnnotatedImage]]
    defects: list[Defect] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BoxFormat:
    """One format of images with boxes.

    `looks_for` says in messages what a folder of this format holds. `recognises` says whether a folder is laid out in
    this format; `may_be` says whether it could be, and is asked only if no format recognises the folder. `read` reads
    the folder, by the file in it that a user names if there is one, and raises DataError and UsageError. A user may
    name files with one of the `suffixes`; `home` returns their data folder.
    """

    name: str
    looks_for: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Path | None], Reading]
    may_be: Callable[[Path], bool] = lambda root: False
    suffixes: Collection[str] = ()
    home: Callable[[Path], Path] = lambda named: named.parent


def checked(annotated: AnnotatedImage, classes: Mapping[str, int]) -> tuple[LabelledImage, list[Defect]]:
    """Return an image with its usable boxes, cut at its border, and the defects of the others."""
    kept, boxes, defects = [], [], []
    places: dict[Annotation, str] = {}
    for annotation in annotated.annotations:
        box, wrong = _inside(annotation.box, annotated.size)
        if (
            box
            and (first := places.setdefault(replace(annotation, place="", area=None), annotation.place))
            != annotation.place
        ):
            box, wrong = None, f"is listed twice, first as {first}"
        if wrong:
            numbers = ", ".join(f"{side:g}" for side in annotation.box)
            group = Group.CUT if box else Group.LEFT_OUT
            defects.append(Defect(annotated.file, f"{annotation.place} ({annotation.name}) {wrong}: {numbers}", group))
        if box:
            kept.append(annotation)
            boxes.append(box)
    image = LabelledImage(
        annotated.path,
        annotated.size,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array([classes[annotation.name] for annotation in kept], np.int64),
        np.array([annotation.crowd for annotation in kept], bool),
        np.array([annotation.difficult for annotation in kept], bool),
        _areas(kept, boxes),
    )
    return image, defects


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the sorted files of a folder with one of these suffixes, in any case; none without the folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def folders_in(folder: Path) -> list[Path]:
    """Return the sorted folders in a folder; none for a folder that does not exist."""
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Return the files of one folder by their names without the suffix.

    Raises:
        DataError: two files have the same name, so labels cannot be assigned to images.
    """
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            kind = "image" if path.suffix.lower() in SUFFIXES else "label file"
            raise DataError(
                expected=f"one {kind} of each name in {shown(path.parent)}",
                received=f"{shown(found[path.stem].name)} and {shown(path.name)}",
                do="rename or remove one: labels are assigned to images by their names",
            )
        found[path.stem] = path
    return found


def image_files(folder: Path) -> dict[str, Path]:
    """Return the images in a folder by their names without the suffix, sorted. Raises as `by_stem`."""
    return by_stem(files_in(folder, SUFFIXES))


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the bytes of a file.

    Raises DataError, which names the file, if it cannot be read, is empty, is not a regular file, or exceeds the limit.
    """
    try:
        with open_regular(path) as file:
            content = file.read(limit + 1)
    except DataError as error:  # its message speaks of an image
        raise broken(path, error.received) from None
    if len(content) > limit:
        raise broken(path, f"more than {limit >> 10:,} KiB", "split it, or remove what is not needed for boxes")
    return content


def read_text(path: Path, limit: int) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a mark. Raises as `read_bounded` and `decoded`."""
    return decoded(read_bounded(path, limit), path)


def read_lines(path: Path, limit: int) -> list[str]:
    """Return the lines of a text file. Raises as `read_text`."""
    return read_text(path, limit).splitlines()


def as_number(text: str) -> float:
    """Return the number in a text, NaN for any other text: a box with NaN is a defect, such a size is not given."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def stated_size(width: object, height: object) -> tuple[int, int] | None:
    """Return the size in an annotation; None unless both sides are whole numbers above 0 and below a billion."""
    sides = [
        int(side) for side in (width, height) if isinstance(side, int | float) and 1 <= side < 1e9 and side == int(side)
    ]
    return (sides[0], sides[1]) if len(sides) == 2 else None


def broken(path: Path, received: str, do: str = "correct the file, or remove it together with its image") -> DataError:
    """Return the error for a file of boxes that cannot be used."""
    return DataError(expected=f"readable boxes in {shown(path)}", received=shown(received)[:300], do=do)


def name_on_one_line(text: object) -> str | None:
    """Return the name of a class in printable characters; None where it is missing or too long."""
    name = shown(" ".join(text.split())) if isinstance(text, str) else ""
    return name if 0 < len(name) <= _LONGEST_NAME else None


def class_name(path: Path, place: str, text: object) -> str:
    """Return the name of a class on one line, in printable characters. Raises DataError if it cannot be used."""
    name = name_on_one_line(text)
    if name is None:
        length = len(" ".join(text.split())) if isinstance(text, str) else 0
        received = f"{place} with a name of {length} characters" if length else f"{place} without a name"
        raise broken(path, received, f"name every class, with at most {_LONGEST_NAME} characters")
    return name


def is_empty(path: Path) -> bool:
    """Return whether a file has no content: its image has no objects."""
    return path.is_file() and path.stat().st_size == 0


def listed(things: Iterable[object], most: int = 5) -> str:
    """Return the first few things as text, and how many more there are."""
    every = list(things)
    more = f"; and {len(every) - most} more" if len(every) > most else ""
    return "; ".join(map(str, every[:most])) + more


def _areas(
    annotations: Sequence[Annotation], boxes: Sequence[tuple[float, float, float, float]]
) -> NDArray[np.float64] | None:
    """Return the area of each outline, or of the box if it has no outline; None if the file gives no area at all."""
    if all(annotation.area is None for annotation in annotations):
        return None
    of_boxes = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    return np.array(
        [
            own if annotation.area is None else annotation.area
            for annotation, own in zip(annotations, of_boxes, strict=True)
        ],
        np.float64,
    )


def _inside(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[tuple[float, float, float, float] | None, str]:
    """Return the box cut at the border of the image, None if nothing is left, and its defect."""
    left, top, right, bottom = box
    width, height = size
    if not all(map(math.isfinite, box)):
        return None, "has a number that is not finite"
    if right < left or bottom < top:
        return None, "is inverted"
    if right == left or bottom == top:
        return None, "is empty"
    cut = max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)
    if np.float32(cut[2]) <= np.float32(cut[0]) or np.float32(cut[3]) <= np.float32(cut[1]):
        return None, f"lies outside the {width} x {height} image"
    reach = max(abs(new - old) for new, old in zip(cut, box, strict=True))
    return cut, f"reaches out of the {width} x {height} image, where it was cut" if reach > _ROUNDING else ""
