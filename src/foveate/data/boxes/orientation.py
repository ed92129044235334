"""Boxes of images with an EXIF orientation: drawn on the pixels as stored, or on the image as it is displayed.

A phone stores the pixels as the sensor saw them, and an orientation by which viewers rotate the image. Annotation
tools either rotate it too, or draw boxes on the stored pixels. The size in the annotation says which: a rotation by 90
degrees swaps the sides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from foveate.data.boxes.annotations import AnnotatedImage, Defect, Group, listed
from foveate.data.images.decode import QUARTER_TURNS, shown

Box = tuple[float, float, float, float]
# By orientation: the box in the displayed image, from a box on the stored pixels of width w and height h.
_SHOWN: Mapping[int, Callable[[float, float, float, float, int, int], Box]] = {
    2: lambda left, top, right, bottom, w, h: (w - right, top, w - left, bottom),
    3: lambda left, top, right, bottom, w, h: (w - right, h - bottom, w - left, h - top),
    4: lambda left, top, right, bottom, w, h: (left, h - bottom, right, h - top),
    5: lambda left, top, right, bottom, w, h: (top, left, bottom, right),
    6: lambda left, top, right, bottom, w, h: (h - bottom, left, h - top, right),
    7: lambda left, top, right, bottom, w, h: (h - bottom, w - right, h - top, w - left),
    8: lambda left, top, right, bottom, w, h: (top, w - right, bottom, w - left),
}


def upright(images: Sequence[AnnotatedImage]) -> tuple[list[AnnotatedImage], list[Defect], list[str]]:
    """Return the images with boxes as displayed, defects for sizes that are not the image's, and notes.

    If the size in an annotation is exactly that of the stored pixels, and not that of the displayed image, its boxes
    are rotated with the image. If the size does not show which (a mirrored or square image, or no size), the annotation
    follows the others of the set: its boxes are rotated if all others that show it are of stored pixels.
    """
    oriented = [one for one in images if one.orientation in _SHOWN and one.annotations]
    telling = [one for one in oriented if _tells(one)]
    stored = [one for one in telling if one.stated_size != one.size]
    silent = [one for one in oriented if not _tells(one)]
    all_stored = len(telling) == len(stored) > 0
    to_rotate = {one.path for one in (*stored, *(silent if all_stored else ()))}
    notes = []
    if stored:
        notes.append(f"images whose boxes were drawn on the stored pixels, now rotated with the image: {len(stored)}")
    if silent:
        how = "rotated like the others" if all_stored else "used on the image as displayed"
        which = listed(shown(one.path) for one in silent)
        notes.append(
            f"images with an EXIF orientation, and annotations that do not say whether boxes are on the stored pixels: "
            f"{len(silent)}; the boxes are {how}; check some of them: {which}"
        )
    return [_rotated(one) if one.path in to_rotate else one for one in images], _wrong_sizes(images, to_rotate), notes


def _stored(image: AnnotatedImage) -> tuple[int, int]:
    """Return the size of the pixels as stored."""
    width, height = image.size
    return (height, width) if image.orientation in QUARTER_TURNS else (width, height)


def _tells(image: AnnotatedImage) -> bool:
    """Return whether the size in the annotation shows whether it is of the stored pixels or of the displayed image."""
    return _stored(image) != image.size and image.stated_size in (image.size, _stored(image))


def _rotated(image: AnnotatedImage) -> AnnotatedImage:
    place = _SHOWN[image.orientation]
    return replace(
        image,
        annotations=[
            replace(annotation, box=place(*annotation.box, *_stored(image))) for annotation in image.annotations
        ],
    )


def _wrong_sizes(images: Sequence[AnnotatedImage], rotated: set[str]) -> list[Defect]:
    defects = []
    for one in images:
        if one.stated_size is not None and one.stated_size != one.size and one.path not in rotated:
            said, size = (" x ".join(map(str, sides)) for sides in (one.stated_size, one.size))
            what = f"says {said} pixels of {one.path}, the image has {size}"
            defects.append(Defect(one.file, what, Group.DOUBTFUL))
    return defects
