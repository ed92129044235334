"""Cluttered digits: one handwritten digit at a random place among fragments of other digits.

This is a classic test of visual attention, as the place of the object is known. The source digits are scikit-learn's
(1,797 of 8 x 8 pixels), enlarged smoothly. All arithmetic is on integers, so a seed gives the same bytes on every
machine.
"""

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
    out_of_range,
    source_digits,
    stamp,
)
from foveate.data.splits import SPLITS

__all__ = ["SPLITS", "DigitsOptions", "Scenes", "make_scenes"]

_DIGIT = 0.36  # mean side of a digit, as a share of the canvas
_FRAGMENT = 0.125  # side of a fragment, as a share of the canvas

_Images = NDArray[np.uint8]


@dataclass(frozen=True)
class DigitsOptions:
    """Options of cluttered digits: sizes in pixels, numbers of scenes, `noise` as half the width of uniform noise.

    Raises:
        UsageError: an option is out of range.
    """

    canvas: int = 64
    fragments: int = 16
    train: int = 4000
    val: int = 1000
    test: int = 2000
    seed: int = 0
    noise: float = 0.0
    channels: int = 1

    def __post_init__(self) -> None:
        check_counts(self, canvas=(24, 512), fragments=(0, 256))
        if not 0 <= self.noise <= 1:
            raise out_of_range("noise", "a number from 0 to 1", self.noise)
        if self.channels not in (1, 3):
            raise out_of_range("channels", "1 or 3", self.channels)


@dataclass(frozen=True)
class Scenes:
    """The scenes of one split.

    `images` uint8 and `masks` bool, both (N, H, W); `labels` int64 (N,); `boxes` int64 (N, 4), xyxy in pixels,
    half-open; `sources` is the source digit of each scene, `distractors` (N, fragments) are the digits of its
    fragments.
    """

    images: _Images
    labels: NDArray[np.int64]
    boxes: NDArray[np.int64]
    masks: NDArray[np.bool_]
    sources: NDArray[np.int64]
    distractors: NDArray[np.int64]


def make_scenes(options: DigitsOptions) -> dict[str, Scenes]:
    """Generate every split; no source digit is in two splits, neither as target nor as distractor.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    digits, labels = source_digits()
    bank = enlarge(digits, _sides(options.canvas))
    pools = deal(labels, np.random.default_rng([options.seed, 0]))
    counts = (options.train, options.val, options.test)
    return {
        split: _draw(options, bank, labels, pool, count, np.random.default_rng([options.seed, 1 + k]))
        for k, (split, pool, count) in enumerate(zip(SPLITS, pools, counts, strict=True))
    }


def _sides(canvas: int) -> list[int]:
    """Return the possible sides of a digit: the mean, and up to 15 % less or more."""
    return sorted({round(canvas * _DIGIT * scale) for scale in (0.85, 0.92, 1.0, 1.08, 1.15)})


def _draw(
    options: DigitsOptions,
    bank: _Images,
    labels: NDArray[np.int64],
    pool: NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
) -> Scenes:
    sides = np.array(_sides(options.canvas))
    rounds = -(-count // len(pool))
    order = np.concatenate([rng.permutation(len(pool)) for _ in range(rounds)])[:count]
    others = (order[:, None] + 1 + rng.integers(len(pool) - 1, size=(count, options.fragments))) % len(pool)

    canvas, size = options.canvas, max(3, round(options.canvas * _FRAGMENT))
    # the margin, cut off below, has room for the empty part of a small digit's patch
    images = np.zeros((count, canvas + sides[-1], canvas + sides[-1]), np.uint8)
    target = np.zeros_like(images)
    for column in others.T:
        patches = cut_fragments(bank, sides, pool[column], size, rng)
        stamp(images, patches, corners(rng, np.full(count, canvas - size)))
    level = rng.integers(len(sides), size=count)
    stamp(target, bank[level, pool[order]], corners(rng, canvas - sides[level]))
    images, target = (np.ascontiguousarray(layer[:, :canvas, :canvas]) for layer in (images, target))
    np.maximum(images, target, out=images)
    if options.noise:
        width = round(255 * options.noise)
        noise = rng.integers(-width, width + 1, size=images.shape, dtype=np.int16)
        images = np.clip(images + noise, 0, 255).astype(np.uint8)
    masks = target >= INK
    return Scenes(images, labels[pool[order]], ink_boxes(masks), masks, pool[order], pool[others])
