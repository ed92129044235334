"""YOLO: a text file for each image with lines `class cx cy width height`, as shares of the image.

The names of the classes are in data.yaml or classes.txt. The paths in data.yaml give the splits if they are inside the
folder. Such paths are often wrong after a folder was moved: wrong ones are ignored if folders give the splits, as
images/<split> with labels/<split>, or <split>/images with <split>/labels. With neither paths nor such folders, images/
with labels/ is one set. The path of a label file is that of its image, with "labels" for the last "images" in it.

A line may also be an outline, `class x y x y x y ...`; its box is the smallest box around it.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foveate import plain_yaml
from foveate.data.boxes.annotations import (
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
    listed,
    read_lines,
    read_text,
)
from foveate.data.boxes.yolo_splits import has_folders, label_folders, left_out, mirrored, split_pictures
from foveate.data.images.decode import SUFFIXES, check_image, shown
from foveate.errors import DataError

__all__ = ["YOLO"]

_LARGEST = 4 << 20  # bytes of a label file: some 100,000 boxes
_LARGEST_YAML = 128 << 10  # bytes, some 5,000 names: PyYAML is slow


def _has_yaml(root: Path) -> bool:
    """Return whether a data.yaml exists; it may also belong to data of another format."""
    return _yaml(root).is_file()


def _read(root: Path) -> Reading:
    """Read every label file.

    Raises:
        DataError: a file cannot be used, or a class is not in the list; the message names file and line.
    """
    yaml = _yaml(root)
    content = _parsed(yaml) if yaml.is_file() else None
    names = _class_names(root) if content is None else _unique(yaml, _yaml_names(yaml, content))
    content = content or {}
    if "kpt_shape" in content:
        raise broken(yaml, "kpt_shape: the labels are key points", "export boxes")
    defects: list[Defect] = []
    outlines: list[Mark] = []
    pictures = split_pictures(root, yaml, content, defects)
    folders = {picture.parent for part in pictures.values() for picture in part}
    labels = {folder: by_stem(files_in(mirrored(root, folder), {".txt"})) for folder in folders}
    splits = {
        split: [_labelled(root, picture, labels[picture.parent], names, defects, outlines) for picture in part]
        for split, part in pictures.items()
    }
    for folder in label_folders(root, pictures):
        images = mirrored(root, folder, "labels", "images")
        stems = {image.stem for image in files_in(images, SUFFIXES)}
        files = (file for file in files_in(folder, {".txt"}) if file.name.lower() != "classes.txt")
        without_image = [file.relative_to(root).as_posix() for file in files if file.stem not in stems]
        defects += [Defect(file, f"has no image in {images.relative_to(root).as_posix()}/") for file in without_image]
    notes = [f"lines that are outlines, used as the boxes around them: {len(outlines)}"] if outlines else []
    return Reading(tuple(sorted(names)), splits, defects, [*notes, *left_out(root, pictures)])


def _labelled(
    root: Path, image: Path, labels: Mapping[str, Path], names: list[str], defects: list[Defect], outlines: list[Mark]
) -> Labelled:
    path, size, file = image.relative_to(root).as_posix(), check_image(image), labels.get(image.stem)
    if file is None:
        defects.append(Defect(path, "has no label file, so it is used as a picture without objects"))
        return Labelled(path, path, size, ())
    return Labelled(path, file.relative_to(root).as_posix(), size, tuple(_marks(file, names, size, outlines)))


def _marks(path: Path, names: list[str], size: tuple[int, int], outlines: list[Mark]) -> Iterator[Mark]:
    if path.is_file() and path.stat().st_size == 0:
        return  # a picture without objects
    for k, line in enumerate(read_lines(path, _LARGEST), 1):
        if not (words := line.split()):
            continue
        kind, *sides = map(as_number, words)
        if len(words) < 7 and len(words) != 5:
            raise broken(path, f"line {k} without five numbers: {line.strip()[:80]}")
        if len(words) % 2 == 0:
            raise broken(path, f"line {k} with {len(words)} values: neither a box nor an outline", "export boxes")
        if not (kind.is_integer() and 0 <= kind < len(names)):
            received = f"line {k} with class {words[0][:20]}, outside the list of 0 to {len(names) - 1}"
            raise broken(path, received, "correct the line, or the list of names")
        left, top, right, bottom = _box(sides) if len(sides) == 4 else _extent(sides)
        mark = Mark(f"line {k}", names[int(kind)], (left * size[0], top * size[1], right * size[0], bottom * size[1]))
        if len(sides) > 4:
            outlines.append(mark)
        yield mark


def _box(sides: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = sides
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _extent(points: list[float]) -> tuple[float, float, float, float]:
    if any(map(math.isnan, points)):
        return math.nan, math.nan, math.nan, math.nan  # min and max would ignore a NaN
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def _yaml(root: Path) -> Path:
    return next((path for path in (root / "data.yaml", root / "data.yml") if path.is_file()), root / "data.yaml")


def _class_names(root: Path) -> list[str]:
    for path in (root / "classes.txt", root / "labels" / "classes.txt"):
        if path.is_file():
            return _unique(path, [line.strip() for line in read_lines(path, _LARGEST_YAML) if line.strip()])
    others = listed(shown(path.name) for path in files_in(root, {".yaml", ".yml"}))
    raise DataError(
        expected=f"the names of the classes in {shown(root / 'data.yaml')} or classes.txt",
        received=f"neither, but {others}" if others else "neither",
        do="rename it to data.yaml" if others else "write data.yaml with a line such as: names: [cat, dog]",
    )


def _yaml_names(path: Path, content: Mapping[Any, Any]) -> list[Any]:
    """Return the `names`, a list or a mapping from 0, 1, 2, ...; errors do not quote the content, which may be huge."""
    do = "write a line such as: names: [cat, dog]"
    names = content.get("names")
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise broken(path, "names whose numbers are not 0, 1, 2, ...", do)
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list):
        raise broken(path, "no list or mapping called names", do)
    if not all(isinstance(name, str) or (isinstance(name, int | float) and abs(name) < 1e9) for name in names):
        raise broken(path, "a name that is not text", do)
    if (count := content.get("nc")) is not None and count != len(names):
        raise broken(path, f"{len(names)} names, but another number as nc", "correct one of the two")
    return names


def _parsed(path: Path) -> dict[Any, Any]:
    text = read_text(path, _LARGEST_YAML)
    try:
        content = plain_yaml.load(text)
    except Exception as error:  # damaged YAML raises YAMLError, ValueError, AttributeError, ...
        received = f"content that is not plain YAML ({type(error).__name__}: {' '.join(str(error).split())[:150]})"
        raise broken(
            path, received, "write a line such as: names: [cat, dog]; and for each split a path or a list of paths"
        ) from None
    return content if isinstance(content, dict) else {}


def _unique(path: Path, names: list[Any]) -> list[str]:
    texts = [class_name(path, f"class {k}", str(name)) for k, name in enumerate(names)]
    if not texts:
        raise broken(path, "no names", "name every class")
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise broken(path, f"class {twice!r} twice", "give every class its own name")
    return texts


YOLO = BoxFormat(
    "YOLO",
    "images/<split>/ with labels/<split>/ or <split>/images/ with <split>/labels/, and data.yaml or classes.txt (YOLO)",
    has_folders,
    _read,
    _has_yaml,
)
