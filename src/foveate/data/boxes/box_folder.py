"""A folder of images with boxes of any format: read, checked and split."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.checks import check_choice
from foveate.data.boxes.annotations import NO_LABELS, Defect, Group, LabelledImage, Reading, checked, listed
from foveate.data.boxes.formats import find_format
from foveate.data.boxes.orientation import upright
from foveate.data.images.decode import open_regular, shown
from foveate.data.images.image_folder import twin_notes
from foveate.data.splits import ON_DEFECT, SPLITS, Item, Split, as_recorded, divide, undivided
from foveate.errors import DataError, counted

__all__ = ["ON_DEFECT", "BoxFolder", "open_boxes"]

_FORMAT = 1  # of the fingerprint
_ONE_KIND = ("images",)  # one class for all, as splits are not stratified by the objects in the images


@dataclass(frozen=True)
class BoxFolder:
    """The images of a folder by split, checked: each header read, each byte hashed, each box inside its image."""

    root: Path
    classes: tuple[str, ...]
    images: Mapping[str, tuple[LabelledImage, ...]]
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
            for p in self.images[name]
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
    split as a whole, and an existing set of that split is used as it is, with or without train. Images in the
    `record` of an earlier split stay in their splits.

    Raises:
        DataError: the folder has no known format, or a file cannot be used; the message names it.
        UsageError: another `on_defect`, or defusedxml is missing for VOC.
    """
    check_choice("on_defect", on_defect, ON_DEFECT)
    if not (root.is_dir() or root.is_file()):
        received = "something else" if root.exists() else "no such folder"
        raise DataError(
            expected=f"a folder of images with boxes at {shown(root)}", received=received, do="check the path"
        )
    named = root if root.is_file() else None
    try:
        form, root = find_format(root)
        reading = form.read(root, named)
        images, defects, rotated = _checked(reading)
        if defects and on_defect == "refuse":
            raise DataError(
                expected=f"boxes without a defect in {shown(root)}",
                received="; ".join(_defect_notes(defects, 3)),
                do="correct the files, or leave such boxes out: on_defect='drop'",
            )
        _check_images(root, images, defects)
        found, how = _split(root, images, seed, measured, recorded=record is not None)
        split = as_recorded(found, record)
        digests = {item.path: _digest(root / item.path) for item in split.items}
    except OSError as error:
        raise DataError(
            expected=f"a readable folder at {shown(root)}", received=str(error), do="check its permissions"
        ) from None
    by_path = {image.path: image for part in images.values() for image in part}
    chosen = {name: tuple(by_path[item.path] for item in getattr(split, name)) for name in SPLITS}
    _check_boxes(root, {name: part for name, part in chosen.items() if part or measured is None}, defects)
    notes = [
        *reading.notes,
        *rotated,
        *_empty_notes(images),
        *_defect_notes(defects),
        *_absent_notes(reading.classes, chosen),
        *twin_notes(split, digests),
    ]
    sources = {name: _common_folder(part) for name, part in chosen.items() if part}
    return BoxFolder(
        root, reading.classes, chosen, split, digests, f"{form.name}; {how}", sources, tuple(defects), tuple(notes)
    )


def _checked(reading: Reading) -> tuple[dict[str, list[LabelledImage]], list[Defect], list[str]]:
    """Return the images of each split with usable boxes, the defects, and notes on images with an EXIF orientation."""
    classes = {name: k for k, name in enumerate(reading.classes)}
    displayed, sizes, notes = upright([annotated for part in reading.splits.values() for annotated in part])
    places = {annotated.path: annotated for annotated in displayed}
    images: dict[str, list[LabelledImage]] = {}
    defects = [*reading.defects, *sizes]
    for split, part in reading.splits.items():
        pairs = [checked(places[annotated.path], classes) for annotated in part]
        images[split] = [image for image, _ in pairs]
        defects += [defect for _, wrong in pairs for defect in wrong]
    return images, sorted(defects), notes


def _split(
    root: Path, images: Mapping[str, Sequence[LabelledImage]], seed: int, measured: str | None, recorded: bool
) -> tuple[Split, str]:
    found = {name: [Item(image.path, 0) for image in part] for name, part in images.items() if part}
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
    if 0 < len(items) < len(shares):  # with no images at all, `_check_boxes` gives the reasons
        raise DataError(
            expected=f"at least {len(shares)} images in {shown(root)} to draw splits from",
            received=str(len(items)),
            do="add images, or make train, val and test yourself",
        )
    return divide(items, shares, seed, _ONE_KIND)


def _check_images(root: Path, images: Mapping[str, Sequence[LabelledImage]], defects: Sequence[Defect]) -> None:
    """Raise DataError without any image, or for a train split without one; the Do line names the cause."""
    if any(images.values()) and images.get("train", "absent"):
        return
    where = "train" if any(images.values()) else "any split"
    lost = any(defect.group is Group.LEFT_OUT for defect in defects)
    raise DataError(
        expected=f"images of {where} in {shown(root)}",
        received="; ".join(("none", *_defect_notes(defects))),
        do="correct the names and paths of the images that were not found" if lost else f"add images to {where}",
    )


def _check_boxes(root: Path, images: Mapping[str, Sequence[LabelledImage]], defects: Sequence[Defect]) -> None:
    """Raise DataError for a split without a box that counts; the Do line names the cause."""
    unusable = {Path(defect.file).stem for defect in defects if defect.group is Group.LEFT_OUT}
    for name, part in images.items():
        if any(len(image.labels) and not image.ignored.all() for image in part):
            continue
        everything = [image for other in images.values() for image in other]
        if any(len(image.labels) for image in part):
            received = f"in {name} only boxes that are crowd or difficult, which do not count"
            do = f"add images with other boxes to {name}, or correct these marks"
        elif any(len(image.labels) for image in everything):
            received = f"none in {name}, which has {counted(len(part), 'image')}"
            do = f"label images of {name}, or move them to train: a missing split is then drawn from train"
            if unusable & {Path(image.path).stem for image in part}:
                do = f"correct the boxes that were left out of {name}"
        elif any(NO_LABELS in defect.what for defect in defects):
            received, do = "none at all", "put a label file of the same name where the format has it, for each image"
        elif any(defect.group is Group.LEFT_OUT for defect in defects):
            received, do = "none that can be used", "correct the boxes that were left out"
        else:
            received, do = "none: every label file is empty", "label objects in the images"
        raise DataError(
            expected=f"boxes in {shown(root)}, in each of train, val and test",
            received="; ".join((received, *_defect_notes(defects))),
            do=do,
        )


def _defect_notes(defects: Sequence[Defect], most: int = 10) -> list[str]:
    groups = {group: [defect for defect in defects if defect.group is group] for group in Group}
    return [f"{counted(len(part), 'defect')}, {group}: {listed(part, most)}" for group, part in groups.items() if part]


def _empty_notes(images: Mapping[str, Sequence[LabelledImage]]) -> list[str]:
    empty = [name for name, part in images.items() if name and not part]
    return [f"without an image, so taken as absent: {', '.join(empty)}"] if empty else []


def _absent_notes(classes: Sequence[str], images: Mapping[str, Sequence[LabelledImage]]) -> list[str]:
    notes = []
    for name, part in images.items():
        present = {int(label) for image in part for label in image.labels}
        if part and (absent := [kind for k, kind in enumerate(classes) if k not in present]):
            notes.append(f"classes without a box in {name}: {listed(absent)}")
    return notes


def _common_folder(images: Sequence[LabelledImage]) -> str:
    """Return the folder that holds all images, relative to the data folder."""
    return shown(os.path.commonpath([Path(image.path).parent for image in images]) or ".") + "/"


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
