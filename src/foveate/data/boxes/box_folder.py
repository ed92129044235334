"""A folder of pictures with boxes of any format: read, checked and split."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.checks import check_choice
from foveate.data.boxes.annotations import NO_LABELS, Defect, Group, Picture, Reading, checked, listed
from foveate.data.boxes.formats import find_format
from foveate.data.boxes.orientation import upright
from foveate.data.images.decode import open_regular, shown
from foveate.data.images.folder import twin_notes
from foveate.data.splits import ON_DEFECT, SPLITS, Item, Split, as_recorded, divide, undivided
from foveate.errors import DataError, counted

__all__ = ["ON_DEFECT", "BoxFolder", "open_boxes"]

_FORMAT = 1  # of the fingerprint
_ONE_KIND = ("pictures",)  # one class for all, as splits are not stratified by the objects in the pictures


@dataclass(frozen=True)
class BoxFolder:
    """The pictures of a folder by split, checked: each header read, each byte hashed, each box inside its picture."""

    root: Path
    classes: tuple[str, ...]
    pictures: Mapping[str, tuple[Picture, ...]]
    split: Split
    digests: Mapping[str, str]
    layout: str
    sources: Mapping[str, str]
    defects: tuple[Defect, ...]
    notes: tuple[str, ...]

    def fingerprint(self, **options: Any) -> str:
        """Return the sha256 of the manifest (split, path, content, boxes) and of the options of their views."""
        manifest = [
            [name, p.path, self.digests[p.path], *(part.tolist() for part in p.objects)]
            for name in SPLITS
            for p in self.pictures[name]
        ]
        record = {"format": _FORMAT, "classes": self.classes, "manifest": manifest, "options": options}
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def open_boxes(
    root: Path, seed: int = 0, on_defect: str = "drop", record: Split | None = None, measured: str | None = None
) -> BoxFolder:
    """Find the format of a folder, and read its boxes and splits. Nothing is written.

    Defects are boxes that are empty, inverted, outside the image, not finite or listed twice, images without labels,
    labels without an image, and sizes that differ from the image's. They are listed in the notes, and such boxes are
    dropped; `on_defect="refuse"` raises instead. With train, val and test, each is its own split. With train and one
    other set, that set is the test set, and 15 % of train are the validation set, which selects the epoch. One set is
    split 70 / 15 / 15. The splits depend only on the names and the seed. With `measured`, a single set becomes that
    split as a whole, and an existing set of that split is used as it is, with or without train. Pictures in the
    `record` of an earlier split stay in their splits.

    Raises:
        DataError: the folder has no known format, or a file cannot be used; the message names it.
        UsageError: another `on_defect`, or defusedxml is missing for VOC.
    """
    check_choice("on_defect", on_defect, ON_DEFECT)
    if not (root.is_dir() or root.is_file()):
        received = "something else" if root.exists() else "no such folder"
        raise DataError(
            expected=f"a folder of pictures with boxes at {shown(root)}", received=received, do="check the path"
        )
    named = root if root.is_file() else None
    try:
        form, root = find_format(root)
        reading = form.read(root, named)
        pictures, defects, turned = _checked(reading)
        if defects and on_defect == "refuse":
            raise DataError(
                expected=f"boxes without a defect in {shown(root)}",
                received="; ".join(_defect_notes(defects, 3)),
                do="correct the files, or leave such boxes out: on_defect='drop'",
            )
        _check_pictures(root, pictures, defects)
        found, how = _split(root, pictures, seed, measured, recorded=record is not None)
        split = as_recorded(found, record)
        digests = {item.path: _digest(root / item.path) for item in split.items}
    except OSError as error:
        raise DataError(
            expected=f"a readable folder at {shown(root)}", received=str(error), do="check its permissions"
        ) from None
    by_path = {picture.path: picture for part in pictures.values() for picture in part}
    chosen = {name: tuple(by_path[item.path] for item in getattr(split, name)) for name in SPLITS}
    _check_boxes(root, {name: part for name, part in chosen.items() if part or measured is None}, defects)
    notes = [
        *reading.notes,
        *turned,
        *_empty_notes(pictures),
        *_defect_notes(defects),
        *_absent_notes(reading.classes, chosen),
        *twin_notes(split, digests),
    ]
    sources = {name: _common_folder(part) for name, part in chosen.items() if part}
    return BoxFolder(
        root, reading.classes, chosen, split, digests, f"{form.name}; {how}", sources, tuple(defects), tuple(notes)
    )


def _checked(reading: Reading) -> tuple[dict[str, list[Picture]], list[Defect], list[str]]:
    """Return the pictures of each split with usable boxes, the defects, and notes on photos with an EXIF turn."""
    classes = {name: k for k, name in enumerate(reading.classes)}
    turned, sizes, notes = upright([labelled for part in reading.splits.values() for labelled in part])
    places = {labelled.path: labelled for labelled in turned}
    pictures: dict[str, list[Picture]] = {}
    defects = [*reading.defects, *sizes]
    for split, part in reading.splits.items():
        pairs = [checked(places[labelled.path], classes) for labelled in part]
        pictures[split] = [picture for picture, _ in pairs]
        defects += [defect for _, wrong in pairs for defect in wrong]
    return pictures, sorted(defects), notes


def _split(
    root: Path, pictures: Mapping[str, Sequence[Picture]], seed: int, measured: str | None, recorded: bool
) -> tuple[Split, str]:
    found = {name: [Item(picture.path, 0) for picture in part] for name, part in pictures.items() if part}
    if measured in found and not recorded:
        return undivided(found[measured], measured, _ONE_KIND), f"only {measured}"
    if len(found) == 1:
        items = next(iter(found.values()))
        if measured:
            return undivided(items, measured, _ONE_KIND), f"one set, all of it {measured}"
        parts = _dealt(root, items, (0.70, 0.15, 0.15), seed)
        return Split(_ONE_KIND, *map(tuple, parts)), f"one set, split 70 / 15 / 15 (seed {seed})"
    if "train" not in found:
        raise DataError(
            expected=f"a train split in {shown(root)}",
            received=f"only {', '.join(found)}",
            do="add it, or keep only one set",
        )
    if len(found) == len(SPLITS):
        return Split(
            _ONE_KIND, **{name: tuple(sorted(found[name])) for name in SPLITS}
        ), "train, val and test as they are"
    held_out = next(name for name in found if name != "train")
    train, val = _dealt(root, found["train"], (0.85, 0.15), seed)
    how = f"train and {held_out}: {held_out} is kept for the final report, 15 % of train (seed {seed}) select the epoch"
    return Split(_ONE_KIND, tuple(train), tuple(val), tuple(sorted(found[held_out]))), how


def _dealt(root: Path, items: Sequence[Item], shares: Sequence[float], seed: int) -> list[list[Item]]:
    if 0 < len(items) < len(shares):  # with no pictures at all, `_check_boxes` gives the reasons
        raise DataError(
            expected=f"at least {len(shares)} pictures in {shown(root)} to draw splits from",
            received=str(len(items)),
            do="add pictures, or lay out train, val and test yourself",
        )
    return divide(items, shares, seed, _ONE_KIND)


def _check_pictures(root: Path, pictures: Mapping[str, Sequence[Picture]], defects: Sequence[Defect]) -> None:
    """Raise DataError without any picture, or for a train split without one; the Do line names the cause."""
    if any(pictures.values()) and pictures.get("train", "absent"):
        return
    where = "train" if any(pictures.values()) else "any split"
    lost = any(defect.group is Group.LEFT_OUT for defect in defects)
    raise DataError(
        expected=f"pictures of {where} in {shown(root)}",
        received="; ".join(("none", *_defect_notes(defects))),
        do="correct the names and paths of the pictures that were not found" if lost else f"add pictures to {where}",
    )


def _check_boxes(root: Path, pictures: Mapping[str, Sequence[Picture]], defects: Sequence[Defect]) -> None:
    """Raise DataError for a split without a box that counts; the Do line names the cause."""
    unusable = {Path(defect.file).stem for defect in defects if defect.group is Group.LEFT_OUT}
    for name, part in pictures.items():
        if any(len(picture.labels) and not picture.ignored.all() for picture in part):
            continue
        everything = [picture for other in pictures.values() for picture in other]
        if any(len(picture.labels) for picture in part):
            received = f"in {name} only boxes that are crowd or difficult, which do not count"
            do = f"add pictures with other boxes to {name}, or correct these marks"
        elif any(len(picture.labels) for picture in everything):
            received = f"none in {name}, which has {counted(len(part), 'picture')}"
            do = f"label pictures of {name}, or move them to train: a missing split is then drawn from train"
            if unusable & {Path(picture.path).stem for picture in part}:
                do = f"correct the boxes that were left out of {name}"
        elif any(NO_LABELS in defect.what for defect in defects):
            received, do = "none at all", "put a label file of the same name where the format has it, for each picture"
        elif any(defect.group is Group.LEFT_OUT for defect in defects):
            received, do = "none that can be used", "correct the boxes that were left out"
        else:
            received, do = "none: every label file is empty", "label objects in the pictures"
        raise DataError(
            expected=f"boxes in {shown(root)}, in each of train, val and test",
            received="; ".join((received, *_defect_notes(defects))),
            do=do,
        )


def _defect_notes(defects: Sequence[Defect], most: int = 10) -> list[str]:
    groups = {group: [defect for defect in defects if defect.group is group] for group in Group}
    return [f"{counted(len(part), 'defect')}, {group}: {listed(part, most)}" for group, part in groups.items() if part]


def _empty_notes(pictures: Mapping[str, Sequence[Picture]]) -> list[str]:
    empty = [name for name, part in pictures.items() if name and not part]
    return [f"without a picture, so taken as absent: {', '.join(empty)}"] if empty else []


def _absent_notes(classes: Sequence[str], pictures: Mapping[str, Sequence[Picture]]) -> list[str]:
    notes = []
    for name, part in pictures.items():
        present = {int(label) for picture in part for label in picture.labels}
        if part and (absent := [kind for k, kind in enumerate(classes) if k not in present]):
            notes.append(f"classes without a box in {name}: {listed(absent)}")
    return notes


def _common_folder(pictures: Sequence[Picture]) -> str:
    """Return the folder that holds all pictures, relative to the data folder."""
    return shown(os.path.commonpath([Path(picture.path).parent for picture in pictures]) or ".") + "/"


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
