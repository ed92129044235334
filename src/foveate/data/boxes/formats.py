"""The known box formats, and which of them a folder has."""

from pathlib import Path

from foveate.data.boxes.annotations import BoxFormat, listed
from foveate.data.boxes.coco import COCO
from foveate.data.boxes.voc import VOC
from foveate.data.boxes.yolo import YOLO
from foveate.data.images.decode import shown
from foveate.errors import DataError

__all__ = ["FORMATS", "find_format", "has_boxes"]

FORMATS = (VOC, COCO, YOLO)


def find_format(root: Path) -> BoxFormat:
    """Return the format of a folder. Raises DataError where no format fits, or more than one."""
    found = [form for form in FORMATS if form.recognises(root)]
    if len(found) > 1:  # no guess: one format may label far more pictures than the other
        received = f"those of {' and of '.join(form.name for form in found)}"
        raise DataError(
            expected=f"boxes of one format in {shown(root)}",
            received=received,
            do="move the files of the other format away",
        )
    found = found or [form for form in FORMATS if form.may_be(root)]
    if not found:
        raise DataError(
            expected=f"in {shown(root)} one of: {'; '.join(form.looks_for for form in FORMATS)}",
            received=f"{listed(sorted(shown(path.name) for path in root.iterdir())) or 'an empty folder'}",
            do="name the folder that holds these, or lay the data out in one of these ways",
        )
    return found[0]


def has_boxes(root: Path) -> bool:
    """Return whether a folder has, or could have, a known format."""
    return any(form.recognises(root) or form.may_be(root) for form in FORMATS)
