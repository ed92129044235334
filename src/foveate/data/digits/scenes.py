"""Digit scenes: handwritten digits of many sizes among clutter, with known boxes, without any download.

A scene has up to six whole digits, the largest 3.5 times as large as the smallest, among fragments of others. Digits
may touch but overlap by at most 10 %. They have the same sources as the cluttered digits. All arithmetic is on
integers, so a seed gives the same bytes on every machine.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveate.data.digits.scene_parts import (
    INK,
    check_counts,
    corners,
    cut_fragments,
    deal,
    enlarge,
    ink_boxes,
    source_digits,
    stamp,
)
from foveate.data.splits import SPLITS

__all__ = ["BoxScenes", "DigitScenesOptions", "make_box_scenes"]

# sides of the smallest and the largest digit, before they are cropped to their ink, as a share of the canvas
_SIDES = (0.145, 0.51)
_LEVELS = 14  # number of sizes, in a geometric series
_FRAGMENTED = (0.18, 0.28, 0.40)  # sides of the digits that fragments are cut from, as a share of the canvas
_FRAGMENT = 0.35  # side of a fragment, as a share of the digit's
_OVERLAP = 0.10  # at most this share of the smaller box lies in another
_COVER = 0.15  # at most this share of a fragment lies in a digit's box
_TRIES = 40

_Images = NDArray[np.uint8]


@dataclass(frozen=True)
class DigitScenesOptions:
    """Options of digit scenes: `canvas` in pixels, `digits` (at most) and `fragments` in a scene, scenes in each split.

    Raises:
        UsageError: an option is out of range.
    """

    canvas: int = 128
    digits: int = 6
    fragments: int = 12
    train: int = 2000
    val: int = 400
    test: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, canvas=(64, 512), digits=(1, 12), fragments=(0, 256))


@dataclass(frozen=True)
class BoxScenes:
    """The scenes of one split.

    `images` uint8 (N, H, W); for each scene `boxes` float32 (M, 4), xyxy in pixels, half-open and tight around the ink,
    `labels` int64 (M,) and `sources` int64 (M,), the source digit of each; `distractors` (N, fragments) are the digits
    of the fragments.
    """

    images: _Images
    boxes: list[NDArray[np.float32]]
    labels: list[NDArray[np.int64]]
    sources: list[NDArray[np.int64]]
    distractors: NDArray[np.int64]


def make_box_scenes(options: DigitScenesOptions) -> dict[str, BoxScenes]:
    """Generate every split; no source digit is in two splits, neither whole nor as a fragment.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    digits, labels = source_digits()
    pools = deal(labels, np.random.default_rng([options.seed, 0]))
    counts = (options.train, options.val, options.test)
    return {
        split: _draw(options, digits, labels, pool, count, np.random.default_rng([options.seed, 101 + k]))
        for k, (split, pool, count) in enumerate(zip(SPLITS, pools, counts, strict=True))
    }


def _draw(
    options: DigitScenesOptions,
    digits: _Images,
    labels: NDArray[np.int64],
    pool: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> BoxScenes:
    images = np.zeros((count, options.canvas, options.canvas), np.uint8)
    wanted = rng.integers(1, options.digits + 1, size=count)
    rounds = -(-wanted.sum() // len(pool))
    sources = np.concatenate([rng.permutation(pool) for _ in range(rounds)])[: wanted.sum()]
    levels = rng.integers(_LEVELS, size=len(sources))
    patches = _patches(digits, sources, levels, options.canvas)

    boxes, chosen = [], []
    for image, members in zip(images, np.split(np.arange(len(sources)), np.cumsum(wanted)[:-1]), strict=True):
        members = members[np.argsort(-levels[members], kind="stable")]  # the largest first, as it needs the most room
        placed = list(_place(image, [patches[k] for k in members], rng))
        boxes.append(np.array([box for _, box in placed], np.float32))
        chosen.append(sources[members[[k for k, _ in placed]]])
    distractors = rng.choice(pool, size=(count, options.fragments))
    _add_clutter(images, boxes, digits, distractors, rng)
    return BoxScenes(images, boxes, [labels[ks] for ks in chosen], chosen, distractors)


def _patches(digits: _Images, sources: NDArray[np.int64], levels: NDArray[np.int64], canvas: int) -> list[_Images]:
    """Return every digit at its size, cropped to its ink."""
    sides = np.round(canvas * np.geomspace(*_SIDES, _LEVELS)).astype(int)
    patches: list[_Images] = [digits[0]] * len(sources)
    for level, side in enumerate(sides.tolist()):
        members = np.flatnonzero(levels == level)
        enlarged = enlarge(digits[sources[members]], [side])[0]
        for k, patch, (left, top, right, bottom) in zip(members, enlarged, ink_boxes(enlarged >= INK), strict=True):
            patches[k] = patch[top:bottom, left:right].copy()
    return patches


def _place(
    image: _Images, patches: Sequence[_Images], rng: np.random.Generator
) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """Draw each patch where it hardly overlaps earlier ones; yield index and box of each patch that found a place."""
    taken: list[tuple[int, int, int, int]] = []
    for k, patch in enumerate(patches):
        height, width = patch.shape
        room = (image.shape[1] - width + 1, image.shape[0] - height + 1)
        for left, top in rng.integers(room, size=(_TRIES, 2)).tolist():
            box = (left, top, left + width, top + height)
            if all(_overlap(box, other) <= _OVERLAP for other in taken):
                taken.append(box)
                place = image[top : top + height, left : left + width]
                np.maximum(place, patch, out=place)
                yield k, box
                break


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> float:
    """Return the shared area over the area of the smaller box."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))


def _add_clutter(
    images: _Images,
    boxes: list[NDArray[np.float32]],
    digits: _Images,
    distractors: NDArray[np.int64],
    rng: np.random.Generator,
) -> None:
    """Draw the fragments where they cover little of any digit; leave out a fragment that finds no such place."""
    count, canvas = images.shape[:2]
    taken = np.zeros((count, max(map(len, boxes)), 4))  # an empty box overlaps nothing
    for row, found in zip(taken, boxes, strict=True):
        row[: len(found)] = found
    sides = [round(canvas * share) for share in _FRAGMENTED]
    banks = [enlarge(digits, [side]) for side in sides]
    for k, column in enumerate(distractors.T):
        side, bank = sides[k % len(sides)], banks[k % len(sides)]
        size = round(side * _FRAGMENT)
        patches = cut_fragments(bank, np.array([side]), column, size, rng)
        place = np.zeros((count, 2), np.int64)
        covers = np.ones(count, bool)
        for _ in range(_TRIES):
            place[covers] = corners(rng, np.full(covers.sum(), canvas - size))
            left_top = place[:, None, ::-1]
            shared = np.minimum(left_top + size, taken[:, :, 2:]) - np.maximum(left_top, taken[:, :, :2])
            covers = np.any(np.prod(np.maximum(shared, 0), axis=2) > _COVER * size**2, axis=1)
        patches[covers] = 0
        stamp(images, patches, place)
