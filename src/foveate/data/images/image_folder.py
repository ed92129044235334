"""Image folders: their layout, every image checked, and notes on what is doubtful."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.checks import check_choice
from foveate.data.boxes.annotations import listed
from foveate.data.images.decode import check_image, open_regular, read_image, shown
from foveate.data.images.layout import FolderLayout, lay_out
from foveate.data.images.reduction import Reduction
from foveate.data.splits import ON_DEFECT, SPLITS, Item, Split, as_recorded
from foveate.errors import DataError, counted

__all__ = ["Folder", "open_folder", "twin_notes"]

_NAMED = 20  # unreadable images that are named one by one
_FORMAT = 1  # of the fingerprint


@dataclass(frozen=True)
class Folder:
    """The images of a folder, all checked: every header is read and every byte hashed."""

    root: Path
    split: Split
    digests: dict[str, str]
    sizes: dict[str, tuple[int, int]]
    layout: FolderLayout
    notes: tuple[str, ...]

    def fingerprint(self, **options: Any) -> str:
        """Return the sha256 of the manifest (split, path, content) and of the options of their views."""
        manifest = [
            [name, item.path, item.label, self.digests[item.path]]
            for name in SPLITS
            for item in getattr(self.split, name)
        ]
        record = {"format": _FORMAT, "classes": self.split.classes, "manifest": manifest, "options": options}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def open_folder(
    root: Path, seed: int, record: Split | None = None, measured: str | None = None, on_defect: str = "refuse"
) -> Folder:
    """Find the images of each split. Nothing is written.

    Folders are splits by their names, in any case: train or Training, val, valid, validation, dev or eval, test or
    Testing, also with other words as in seg_train, test_set or Train Images, and within folders that hold only one
    other, as archive/dataset/train or seg_train/seg_train. With all three, each is its own split. With train/ and one
    other folder, that folder is the test set, and 15 % of train/ are the validation set, which selects the epoch. One
    folder of classes, or only train/, is split 70 / 15 / 15. An empty folder counts as absent. All splits are
    stratified and depend only on the names and the seed. With `measured`, an unsplit folder of classes
    becomes that split as a whole, and an existing folder of that split is used as it is, with or without train/. Images
    in the `record` of an earlier split stay in their splits. With `on_defect` "refuse", only the headers are read, and
    unreadable images raise an error that names them; with "drop", every image is decoded, and unreadable ones are left
    out.

    Raises:
        DataError: no such folder, classes that differ or are empty, or files that are not readable images.
        UsageError: another `on_defect`.
    """
    check_choice("on_defect", on_defect, ON_DEFECT)
    if not root.is_dir():
        received = "a file" if root.exists() else "no such folder"
        do = "name the folder; if the file describes boxes, add --task detect" if root.exists() else "check the path"
        raise DataError(expected=f"a folder of images at {shown(root)}", received=received, do=do)
    try:
        layout = lay_out(root, seed, measured, recorded=record is not None)
    except OSError as error:
        raise DataError(
            expected=f"a readable folder at {shown(root)}", received=str(error), do="check its permissions"
        ) from None
    split, sizes, digests, defects = as_recorded(layout.split, record), {}, {}, {}
    for item in split.items:
        try:
            sizes[item.path] = _checked(root / item.path, whole=on_defect == "drop")
            with open_regular(root / item.path) as file:
                digests[item.path] = hashlib.file_digest(file, "sha256").hexdigest()
        except DataError as error:
            defects[item.path] = error
    if defects and on_defect == "refuse":
        raise _unreadable(root, defects)
    split = _without(root, split, defects)
    notes = (*layout.notes, *_defect_notes(defects), *twin_notes(split, digests))
    return Folder(root, split, digests, sizes, layout, notes)


def _checked(path: Path, whole: bool) -> tuple[int, int]:
    """Return the (width, height) of an image; with `whole`, decode all of it as a check. Raises DataError."""
    size = check_image(path)
    if whole:
        read_image(path, reduction=Reduction(1))
    return size


def _unreadable(root: Path, defects: Mapping[str, DataError]) -> DataError:
    """Return the error that names every image that is not readable."""
    do = "leave them out: on_defect='drop'"
    if len(defects) == 1:
        (error,) = defects.values()
        return DataError(
            expected=error.expected, received=error.received, do=f"{error.do}; or {do.replace('them', 'it')}"
        )
    named = listed((f"{shown(path)}: {error.received}" for path, error in defects.items()), _NAMED)
    received = f"{len(defects)} that are not: {named}"
    return DataError(expected=f"readable images in {shown(root)}", received=received, do=f"replace them, or {do}")


def _without(root: Path, split: Split, defects: Mapping[str, DataError]) -> Split:
    """Return the split without the defective images. Raises DataError if a class has no images left in a part."""
    if not defects:
        return split
    parts = {name: tuple(item for item in getattr(split, name) if item.path not in defects) for name in SPLITS}
    for name, part in parts.items():
        if lost := {item.label for item in getattr(split, name)} - {item.label for item in part}:
            (note,) = _defect_notes(defects)
            raise DataError(
                expected=f"readable images of every class in {shown(root)}",
                received=f"none of class {shown(split.classes[min(lost)])!r} for {name}; {note}",
                do="replace the damaged images",
            )
    return Split(split.classes, **parts)


def _defect_notes(defects: Mapping[str, DataError]) -> Iterator[str]:
    if defects:
        named = listed((f"{shown(path)}: {error.received}" for path, error in defects.items()), _NAMED)
        yield f"{counted(len(defects), 'image')} that cannot be read, left out: {named}"


def twin_notes(split: Split, digests: Mapping[str, str]) -> Iterator[str]:
    """Yield notes on identical files: in two splits they make scores too high; in two classes one label is wrong."""
    twins: dict[str, list[tuple[str, Item]]] = defaultdict(list)
    for name in SPLITS:
        for item in getattr(split, name):
            twins[digests[item.path]].append((name, item))
    across = [group for group in twins.values() if len({name for name, _ in group}) > 1]
    torn = [group for group in twins.values() if len({item.label for _, item in group}) > 1]
    for groups, what in ((across, "in more than one split"), (torn, "in more than one class")):
        if groups:
            example = " = ".join(shown(item.path) for _, item in groups[0])
            yield f"the same image {what}, {len(groups)} {'time' if len(groups) == 1 else 'times'}: {example}"
