"""YOLO: a text file beside each image, `class cx cy width height` a line as shares of the image; names in data.yaml or classes.txt.

The folders count, not the paths in data.yaml, which seldom survive a move: images/<split> with labels/<split>, or <split>/images with
<split>/labels, or images with labels.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from foveate.data.annotations import Defect, Labelled, Mark, Reading, broken, class_name, image_files, read_bounded, read_lines
from foveate.data.images import check_image, shown
from foveate.errors import DataError

__all__ = ["LOOKED_FOR", "is_yolo", "read_yolo"]

LOOKED_FOR = "images/<split>/ with labels/<split>/ or <split>/images/ with <split>/labels/, and data.yaml or classes.txt (YOLO)"
_LARGEST = 4 << 20  # bytes of a label file: some 100,000 boxes
_LARGEST_YAML = 128 << 10  # bytes, some 5,000 names: PyYAML is slow
_SPLITS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}


def is_yolo(root: Path) -> bool:
    """Whether the folder is laid out for YOLO."""
    return bool(_folders(root))


def read_yolo(root: Path) -> Reading:
    """Read every label file.

    Raises:
        DataError: a file cannot be used, or a class is not in the list; the file and line are named.
    """
    names = _class_names(root)
    defects: list[Defect] = []
    splits = {split: list(_pictures(root, images, labels, names, defects)) for split, (images, labels) in _folders(root).items()}
    return Reading("YOLO", tuple(sorted(names)), splits, defects)


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of images and of labels of each split."""
    found = {}
    for split, aliases in _SPLITS.items():
        for alias in aliases:
            pairs = ((root / "images" / alias, root / "labels" / alias), (root / alias / "images", root / alias / "labels"))
            for pair in pairs:
                if split not in found and all(folder.is_dir() for folder in pair):
                    found[split] = pair
    if not found and (root / "images").is_dir() and (root / "labels").is_dir():
        found[""] = (root / "images", root / "labels")
    return found


def _pictures(root: Path, images: Path, labels: Path, names: list[str], defects: list[Defect]) -> Iterator[Labelled]:
    pictures = image_files(images)
    files = {path.stem: path for path in sorted(labels.glob("*.txt")) if path.name != "classes.txt"}
    alone = [files[name].relative_to(root).as_posix() for name in sorted(files.keys() - pictures.keys())]
    defects += [Defect(file, f"has no image in {images.relative_to(root).as_posix()}/") for file in alone]
    for name, image in pictures.items():
        path, size, file = image.relative_to(root).as_posix(), check_image(image), labels / f"{name}.txt"
        if name not in files:
            defects.append(Defect(path, "has no label file, so it was taken as a picture without objects"))
        yield Labelled(path, file.relative_to(root).as_posix(), size, tuple(_marks(file, names, size)) if name in files else ())


def _marks(path: Path, names: list[str], size: tuple[int, int]) -> Iterator[Mark]:
    if path.is_file() and path.stat().st_size == 0:
        return  # a picture without objects
    for number, line in enumerate(read_lines(path, _LARGEST), 1):
        words = line.split()
        if not words:
            continue
        try:
            kind, x, y, width, height = map(float, words)
        except ValueError:
            if len(words) > 6:
                raise broken(path, f"in line {number} {len(words)} values: an outline, not a box", "export boxes, not segments") from None
            raise broken(path, f"in line {number}, where five numbers are due: {line.strip()[:80]}") from None
        if not (kind.is_integer() and 0 <= kind < len(names)):
            received = f"in line {number} class {words[0][:20]}, outside the list of 0 to {len(names) - 1}"
            raise broken(path, received, "correct the line, or the list of names")
        box = ((x - width / 2) * size[0], (y - height / 2) * size[1], (x + width / 2) * size[0], (y + height / 2) * size[1])
        yield Mark(f"line {number}", names[int(kind)], box)


def _class_names(root: Path) -> list[str]:
    for path in (root / "data.yaml", root / "data.yml"):
        if path.is_file():
            return _unique(path, _yaml_names(path))
    for path in (root / "classes.txt", root / "labels" / "classes.txt"):
        if path.is_file():
            return _unique(path, [line.strip() for line in read_lines(path, _LARGEST_YAML) if line.strip()])
    raise DataError(
        expected=f"the names of the classes in {shown(root / 'data.yaml')} or classes.txt",
        received="neither",
        do="write data.yaml with a line such as: names: [cat, dog]",
    )


def _yaml_names(path: Path) -> list[Any]:
    """The `names`, a list or a mapping from 0, 1, 2, ...; nothing of the content is ever put into a message, as it may be huge."""
    do = "write a line such as: names: [cat, dog]"
    content = _parsed(path)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        if set(names) != set(range(len(names))):
            raise broken(path, "names whose numbers are not 0, 1, 2, ...", do)
        names = [names[k] for k in range(len(names))]
    if not isinstance(names, list):
        raise broken(path, "no list or mapping called names", do)
    if not all(isinstance(name, str) or (isinstance(name, int | float) and abs(name) < 1e9) for name in names):
        raise broken(path, "a name that is no text", do)
    count = content.get("nc") if isinstance(content, dict) else None
    if count is not None and count != len(names):
        raise broken(path, f"{len(names)} names, which is not its nc", "correct one of the two")
    return names


def _parsed(path: Path) -> Any:
    import yaml

    class Plain(yaml.SafeLoader):
        """Without aliases: a data set needs none, and a few lines of them unfold to gigabytes."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("an alias (*)")
            return super().compose_node(parent, index)

    content = read_bounded(path, _LARGEST_YAML)
    try:
        return yaml.load(content, Plain)
    except Exception as error:  # damaged YAML surfaces as YAMLError, ValueError, RecursionError, AttributeError, ...
        raise broken(path, f"no plain YAML ({type(error).__name__}: {' '.join(str(error).split())[:150]})", "correct the file") from None


def _unique(path: Path, names: list[Any]) -> list[str]:
    texts = [class_name(path, f"class {k}", str(name)) for k, name in enumerate(names)]
    if not texts:
        raise broken(path, "no names", "name every class")
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise broken(path, f"the class {twice!r} twice", "give every class a name of its own")
    return texts
