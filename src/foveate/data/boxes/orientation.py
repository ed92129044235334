"""Boxes of photos with an EXIF orientation: drawn on the pixels as stored, or on the photo as it is shown.

A phone stores a photo as the sensor saw it, and an orientation by which viewers turn it. Annotation tools either turn
it too, or draw boxes on the stored pixels. The size in the annotation tells which: a quarter turn swaps the sides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from foveate.data.boxes.annotations import Defect, Group, Labelled, listed
from foveate.data.images.decode import QUARTER_TURNS, shown

Box = tuple[float, float, float, float]
# By orientation: the box in the photo as shown, from one on the stored pixels of width w and height h.
_SHOWN: Mapping[int, Callable[[float, float, float, float, int, int], Box]] = {
    2: lambda left, top, right, bottom, w, h: (w - right, top, w - left, bottom),
    3: lambda left, top, right, bottom, w, h: (w - right, h - bottom, w - left, h - top),
    4: lambda left, top, right, bottom, w, h: (left, h - bottom, right, h - top),
    5: lambda left, top, right, bottom, w, h: (top, left, bottom, right),
    6: lambda left, top, right, bottom, w, h: (h - bottom, left, h - top, right),
    7: lambda left, top, right, bottom, w, h: (h - bottom, w - right, h - top, w - left),
    8: lambda left, top, right, bottom, w, h: (top, w - right, bottom, w - left),
}


def upright(pictures: Sequence[Labelled]) -> tuple[list[Labelled], list[Defect], list[str]]:
    """Return the pictures with boxes as shown, defects for sizes that are not the image's, and notes.

    Where the sides in an annotation are exactly those of the stored pixels, and not those of the photo as shown, its
    boxes are turned with the photo. An annotation that does not tell (a mirrored or square photo, or no size) follows
    the others of the set: its boxes are turned if all that tell are of stored pixels.
    """
    turned = [one for one in pictures if one.orientation in _SHOWN and one.marks]
    telling = [one for one in turned if _tells(one)]
    stored = [one for one in telling if one.stated_size != one.size]
    silent = [one for one in turned if not _tells(one)]
    all_stored = len(telling) == len(stored) > 0
    to_turn = {one.path for one in (*stored, *(silent if all_stored else ()))}
    notes = []
    if stored:
        notes.append(f"photos whose boxes were drawn before their EXIF turn, turned with the photo: {len(stored)}")
    if silent:
        how = "turned like the others" if all_stored else "used as the photo is shown"
        which = listed(shown(one.path) for one in silent)
        notes.append(
            f"photos with an EXIF turn whose annotation does not tell whether boxes were drawn before it: "
            f"{len(silent)}; the boxes are {how}, look at some of them: {which}"
        )
    return [_turned(one) if one.path in to_turn else one for one in pictures], _wrong_sizes(pictures, to_turn), notes


def _stored(picture: Labelled) -> tuple[int, int]:
    """Return the size of the pixels as stored."""
    width, height = picture.size
    return (height, width) if picture.orientation in QUARTER_TURNS else (width, height)


def _tells(picture: Labelled) -> bool:
    """Return whether the size in the annotation tells stored pixels from the photo as shown."""
    return _stored(picture) != picture.size and picture.stated_size in (picture.size, _stored(picture))


def _turned(picture: Labelled) -> Labelled:
    place = _SHOWN[picture.orientation]
    return replace(picture, marks=[replace(mark, box=place(*mark.box, *_stored(picture))) for mark in picture.marks])


def _wrong_sizes(pictures: Sequence[Labelled], turned: set[str]) -> list[Defect]:
    defects = []
    for one in pictures:
        if one.stated_size is not None and one.stated_size != one.size and one.path not in turned:
            said, size = (" x ".join(map(str, sides)) for sides in (one.stated_size, one.size))
            what = f"says {said} pixels of {one.path}, the image has {size}"
            defects.append(Defect(one.file, what, Group.DOUBTFUL))
    return defects
