"""The known box formats, and which of them a folder has."""

from pathlib import Path

from foveate.data.boxes.annotations import BoxFormat, listed
from foveate.data.boxes.coco import COCO
from foveate.data.boxes.places import folders_below
from foveate.data.boxes.voc import VOC
from foveate.data.boxes.yolo import YOLO
from foveate.data.images.decode import shown
from foveate.errors import DataError

__all__ = ["FORMATS", "find_format", "has_boxes"]

FORMATS = (VOC, COCO, YOLO)
_DEEPEST = 3  # folders around the data, as in archive/dataset/yolo


def find_format(path: Path) -> tuple[BoxFormat, Path]:
    """Return the format of a folder, or of the folder of a file that describes data, and the folder of the data.

    The data may be in a folder inside, if only one of those has boxes.

    Raises:
        DataError: no format fits, or more than one, or several folders inside have boxes.
    """
    if path.is_file():
        form = next((form for form in FORMATS if path.suffix.lower() in form.suffixes), None)
        if form is None:
            known = ", ".join(suffix for form in FORMATS for suffix in form.suffixes)
            raise DataError(
                expected=f"a folder of images with boxes, or a file that describes one ({known}), at {shown(path)}",
                received=f"a {path.suffix or 'nameless'} file",
                do="name the folder that holds the data",
            )
        return form, form.home(path)
    if found := _fitting(path):
        return found, path
    inner = [place for place in folders_below(path, _DEEPEST) if place != path and _fitting(place)]
    inner = [place for place in inner if not any(place != other and place.is_relative_to(other) for other in inner)]
    if len(inner) == 1 and (found := _fitting(inner[0])):
        return found, inner[0]
    raise DataError(
        expected=f"in {shown(path)} one of: {'; '.join(form.looks_for for form in FORMATS)}",
        received=f"{listed(sorted(shown(place.name) for place in path.iterdir())) or 'an empty folder'}",
        do=f"name one data set: {' or '.join(shown(place) for place in inner[:3])}"
        if inner
        else "pass the folder that holds these, or arrange the data in one of these ways",
    )


def has_boxes(root: Path) -> bool:
    """Return whether a folder has, or could have, a known format."""
    return any(form.recognises(root) or form.may_be(root) for form in FORMATS)


def _fitting(root: Path) -> BoxFormat | None:
    """Return the format of a folder, None without one. Raises DataError where more than one fits."""
    found = [form for form in FORMATS if form.recognises(root)]
    if len(found) > 1:  # no guess: one format may label far more images than the other
        raise DataError(
            expected=f"boxes of one format in {shown(root)}",
            received=f"those of {' and of '.join(form.name for form in found)}",
            do="move the files of the other format away, or name the file or folder of one of them",
        )
    return next(iter(found), None) or next((form for form in FORMATS if form.may_be(root)), None)
