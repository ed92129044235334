"""YOLO: a text file for each image with lines `class cx cy width height`, as shares of the image.

The names of the classes are in data.yaml (or another YAML file with names), classes.txt, or Darknet's obj.names. The
paths in data.yaml, or Darknet's in obj.data, give the splits if they are inside the folder. Such paths are often wrong
after a folder was moved: wrong ones are ignored if folders give the splits, as images/<split> with labels/<split>, or
<split>/images with <split>/labels. With neither paths nor such folders, images/ with labels/ is one set. The path of a
label file is that of its image, with "labels" for the last "images" in it, so it may lie beside its image.

A line may also be an outline, `class x y x y x y ...`; its box is the smallest box around it.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foveate import plain_yaml
from foveate.data.boxes.annotations import (
    NO_LABELS,
    AnnotatedImage,
    Annotation,
    BoxFormat,
    Defect,
    Group,
    Reading,
    as_number,
    broken,
    by_stem,
    class_name,
    files_in,
    is_empty,
    listed,
    read_lines,
    read_text,
)
from foveate.data.boxes.places import files_below, in_any_case
from foveate.data.boxes.yolo_splits import (
    flat_folders,
    has_folders,
    is_label_file,
    label_folders,
    left_out,
    mirrored,
    split_images,
)
from foveate.data.images.decode import SUFFIXES, check_turned_image, shown
from foveate.errors import DataError, counted

__all__ = ["YOLO"]

_LARGEST = 4 << 20  # bytes of a label file: some 100,000 boxes
_YAML = (".yaml", ".yml")
_NAMES = re.compile(r"^names *:", re.MULTILINE)
_PIXELS = 2  # two numbers from here on are pixels: shares of the image are at most 1
_LARGEST_YAML = 128 << 10  # bytes, some 5,000 names: PyYAML is slow


def _has_yaml(root: Path) -> bool:
    """Return whether a data.yaml exists; it may also belong to data of another format."""
    return _yaml(root).is_file()


def _read(root: Path, named: Path | None = None) -> Reading:
    """Read every label file; a YAML file or an obj.data that is `named` describes the data.

    Raises:
        DataError: a file cannot be used, or a class is not in the list; the message names file and line.
    """
    yaml = named if named and named.suffix.lower() in _YAML else _yaml(root)
    content = _parsed(yaml) if yaml.is_file() and (named is None or named == yaml) else None
    names = _class_names(root) if content is None else _unique(yaml, _yaml_names(yaml, content))
    content = _darknet(named or root) if content is None else content
    if "kpt_shape" in content:
        raise broken(yaml, "kpt_shape: the labels are key points", "export boxes")
    defects: list[Defect] = []
    outlines: list[Annotation] = []
    images = split_images(root, yaml, content, defects)
    folders = {image.parent for part in images.values() for image in part}
    labels = {folder: by_stem(files_in(mirrored(root, folder), {".txt"})) for folder in folders}
    splits = {
        split: [_annotated(root, image, labels[image.parent], names, defects, outlines) for image in part]
        for split, part in images.items()
    }
    for folder in label_folders(root, images):
        beside = mirrored(root, folder, "labels", "images")
        stems = {image.stem for image in files_in(beside, SUFFIXES)}
        files = (file for file in files_in(folder, {".txt"}) if is_label_file(file))
        without_image = [file.relative_to(root).as_posix() for file in files if file.stem not in stems]
        defects += [Defect(file, f"has no image in {beside.relative_to(root).as_posix()}/") for file in without_image]
    notes = [f"lines that are outlines, used as the boxes around them: {len(outlines)}"] if outlines else []
    return Reading(tuple(sorted(names)), splits, defects, [*notes, *left_out(root, images)])


def _annotated(
    root: Path,
    image: Path,
    labels: Mapping[str, Path],
    names: list[str],
    defects: list[Defect],
    outlines: list[Annotation],
) -> AnnotatedImage:
    path, file = image.relative_to(root).as_posix(), labels.get(image.stem)
    size, orientation = check_turned_image(image)
    if file is None:
        what = f"{NO_LABELS}, so it is used as an image without objects"
        defects.append(Defect(path, what, Group.DOUBTFUL))
        return AnnotatedImage(path, path, size, (), None, orientation)
    name = file.relative_to(root).as_posix()
    return AnnotatedImage(
        path, name, size, tuple(_annotations(file, name, names, size, defects, outlines)), None, orientation
    )


def _annotations(
    path: Path, file: str, names: list[str], size: tuple[int, int], defects: list[Defect], outlines: list[Annotation]
) -> Iterator[Annotation]:
    for k, line in enumerate([] if is_empty(path) else read_lines(path, _LARGEST), 1):
        if not (words := line.split()):
            continue
        if "," in line:
            do = "separate the values by spaces, and write 0.5 with a point"
            raise broken(path, f"line {k} with commas: {shown(line)[:60]}", do)
        kind, *sides = map(as_number, words)
        if len(words) == 6:
            defects.append(Defect(file, f"line {k} has a sixth value, {_sixth(words[5])}: ignored", Group.DOUBTFUL))
            sides = sides[:4]
        elif len(words) < 5 or len(words) % 2 == 0:
            what = f"line {k} has {counted(len(words), 'value')}: neither a box of five nor an outline"
            defects.append(Defect(file, what))
            continue
        if not (kind.is_integer() and 0 <= kind < len(names)):
            received = f"line {k} with class {words[0][:20]}, outside the list of 0 to {len(names) - 1}"
            raise broken(path, received, "correct the line, or the list of names: the first class is 0")
        if sum(side >= _PIXELS for side in sides) > 1:
            what = f"line {k} has pixels: {' '.join(words[1:5])[:60]}; YOLO has shares of the image's width and height"
            defects.append(Defect(file, what))
            continue
        left, top, right, bottom = _box(sides) if len(sides) == 4 else _extent(sides)
        annotation = Annotation(
            f"line {k}", names[int(kind)], (left * size[0], top * size[1], right * size[0], bottom * size[1])
        )
        if len(sides) > 4:
            outlines.append(annotation)
        yield annotation


def _sixth(text: str) -> str:
    """Return the sixth value of a line, and what tools write there."""
    value = as_number(text)
    if value.is_integer() and value >= 0:
        return f"{text[:20]} (the number of a track?)"
    return f"{text[:20]} (a confidence, as of predictions?)" if 0 < value < 1 else text[:20]


def _box(sides: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = sides
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _extent(points: list[float]) -> tuple[float, float, float, float]:
    if any(map(math.isnan, points)):
        return math.nan, math.nan, math.nan, math.nan  # min and max would ignore a NaN
    return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])


def _yaml(root: Path) -> Path:
    """Return the YAML file that describes the data, data.yaml if there is none. Raises DataError for several."""
    for name in ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml", "config.yaml", "config.yml"):
        path = in_any_case(root, name)
        if path.is_file() and (name.startswith("data.") or _NAMES.search(read_text(path, _LARGEST_YAML))):
            return path
    others = [path for path in files_in(root, _YAML) if _NAMES.search(read_text(path, _LARGEST_YAML))]
    if len(others) > 1:
        raise DataError(
            expected=f"one YAML file with the names of the classes in {shown(root)}",
            received=listed(shown(path.name) for path in others),
            do="rename the right one to data.yaml",
        )
    return others[0] if others else root / "data.yaml"


def _home(named: Path) -> Path:
    """Return the data folder of a YAML file that the user names: where its `path` leads, else the folder it is in."""
    content = _parsed(named) if named.suffix.lower() in _YAML else {}
    place = named.parent / path if isinstance(path := content.get("path"), str) else named.parent
    return place if place.is_dir() and not place.resolve().is_relative_to(named.parent.resolve()) else named.parent


def _darknet(place: Path) -> dict[str, str]:
    """Return the paths in Darknet's obj.data, by the names that data.yaml uses; none without the file."""
    for path in [place] if place.is_file() else files_in(place, {".data"}):
        pairs = (line.partition("=") for line in read_lines(path, _LARGEST_YAML))
        values = {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}
        return {key: value for key, value in values.items() if key in ("train", "valid", "test") and value}
    return {}


def _class_names(root: Path) -> list[str]:
    folders = [root, root / "labels", *dict.fromkeys(path.parent for path in files_below(root, {".names", ".labels"}))]
    folders += [folder for part in flat_folders(root).values() for folder in part]
    for folder in folders:
        for path in [folder / "classes.txt", *files_in(folder, {".names", ".labels"})]:
            if path.is_file():
                return _unique(path, [line.strip() for line in read_lines(path, _LARGEST_YAML) if line.strip()])
    others = listed(shown(path.name) for path in files_in(root, _YAML))
    raise DataError(
        expected=f"the names of the classes in {shown(root / 'data.yaml')}, classes.txt or obj.names",
        received=f"none of them, but {others} without names" if others else "none of them",
        do="write data.yaml with a line such as: names: [cat, dog]",
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
    (*_YAML, ".data"),
    _home,
)
