"""Find the files of a data folder as people lay them out: in any subfolder, with split names in the path."""

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from foveate.data.boxes.annotations import files_in, folders_in
from foveate.data.images.decode import SUFFIXES, shown
from foveate.data.splits import SPLIT_NAMES, split_of
from foveate.errors import DataError

__all__ = ["ImageFinder", "files_below", "folders_below", "in_any_case", "split_of_list", "split_on_the_way"]

_DEEPEST = 3  # folders below the data folder, as in VOCdevkit/VOC2007/Annotations


def files_below(root: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """Yield the files of a data folder with one of these suffixes, in any case, sorted within each folder."""
    for folder in folders_below(root, _DEEPEST):
        yield from (path for path in files_in(folder, suffixes) if path.is_file())


def folders_below(top: Path, deepest: int = 32) -> Iterator[Path]:
    """Yield a folder and those inside it, sorted, also by links; not hidden ones, and nothing without the folder."""
    around = {*top.resolve().parents, *(place.resolve() for place in top.absolute().parents)}
    return _below(top, deepest, frozenset(around))


def _below(top: Path, deepest: int, above: frozenset[Path]) -> Iterator[Path]:
    real = top.resolve()
    if real in above or not top.is_dir():  # a link to a folder around it is a loop
        return
    yield top
    for inner in folders_in(top) if deepest else ():
        if not inner.name.startswith((".", "__")):
            yield from _below(inner, deepest - 1, above | {real})


def in_any_case(top: Path, *names: str) -> Path:
    """Return the path of these names below a folder, each in the case that the disk has where it has the name."""
    for name in names:
        place = top / name
        if not place.exists() and top.is_dir():
            place = next((path for path in sorted(top.iterdir()) if path.name.lower() == name.lower()), place)
        top = place
    return top


def split_on_the_way(root: Path, path: Path) -> str | None:
    """Return the split that a folder on the way from the data folder to a file is named after, None without one."""
    parts = path.relative_to(root).parts[:-1]
    return next((split for part in parts if (split := split_of(part))), None)


def split_of_list(root: Path, file: Path) -> str | None:
    """Return the split that a file which lists images is named after, as "my_train_boxes", else that of its folders.

    None where its name has words for several splits.
    """
    words = re.split(r"[^a-z]+", file.stem.lower())
    splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return (splits.pop() if len(splits) == 1 else None) or split_on_the_way(root, file)


class ImageFinder:
    """The images of a data folder, found by the file name of an annotation wherever they are."""

    def __init__(self, root: Path):
        self.root = root
        self._by_stem: dict[str, list[Path]] = {}
        self._by_name: dict[str, list[Path]] = {}
        for path in files_below(root, SUFFIXES):
            self._by_stem.setdefault(path.stem.lower(), []).append(path)
            self._by_name.setdefault(path.name.lower(), []).append(path)

    def of_annotation(self, file: Path) -> Path | None:
        """Return the image of the same name in the nearest folder; None without one. Raises DataError for two."""
        return self._nearest(file, self._by_stem.get(file.stem.lower(), []))

    def named(self, file: Path, name: str) -> Path | None:
        """Return the image that an annotation file names, by its file name alone; None without one or with several."""
        name = name.replace("\\", "/").rpartition("/")[2].lower()
        images = self._by_name.get(name) or self._by_stem.get(name, [])
        found = self._of_split(split_of_list(self.root, file), images)
        return found[0] if len(found) == 1 else None

    def _nearest(self, file: Path, images: Iterable[Path]) -> Path | None:
        fitting = self._of_split(split_on_the_way(self.root, file), images)
        fitting.sort(key=lambda image: -_common(image.parent, file.parent))
        if len(fitting) > 1 and _common(fitting[0].parent, file.parent) == _common(fitting[1].parent, file.parent):
            raise DataError(
                expected=f"one image of each name in {shown(fitting[0].parent)}",
                received=" and ".join(shown(image.relative_to(self.root).as_posix()) for image in fitting[:2]),
                do="rename or remove one: labels are assigned to images by their names",
            )
        return fitting[0] if fitting else None

    def _of_split(self, split: str | None, images: Iterable[Path]) -> list[Path]:
        """Leave out the images of other splits: they are other images, even where they have the same name."""
        return [image for image in images if split is None or split_on_the_way(self.root, image) in (None, split)]


def _common(one: Path, other: Path) -> int:
    """Return how many of the first parts of two folders are the same; the same folder is nearer than one inside it."""
    count = 0
    for a, b in zip(one.parts, other.parts, strict=False):
        if a != b:
            break
        count += 1
    return 2 * count + (one == other)
