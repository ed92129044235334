"""Cluttered digits: a real handwritten digit somewhere among fragments of others.

The classic test of visual attention, with the answer to "where should one look?" known. The digits are scikit-learn's
(1,797 of 8 x 8), enlarged smoothly; all arithmetic is on integers, so a seed gives the same bytes on every machine.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import UsageError, missing_extra

__all__ = ["SPLITS", "DigitsOptions", "Scenes", "make_scenes"]

SPLITS = ("train", "val", "test")
_SHARES = (0.70, 0.10, 0.20)  # of the source digits
_DIGIT = 0.36  # mean side of a digit, as a share of the canvas
_FRAGMENT = 0.125  # side of a fragment, as a share of the canvas
_INK = 64  # from here on, of 255, a pixel belongs to the digit

_Images = NDArray[np.uint8]


@dataclass(frozen=True)
class DigitsOptions:
    """What to draw: sizes in pixels, counts of scenes, `noise` as the half width of uniform noise in 0..1.

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
        ranges = {
            "canvas": (24, 512),
            "fragments": (0, 256),
            "train": (10, 200_000),
            "val": (10, 200_000),
            "test": (10, 200_000),
            "seed": (0, 2**63 - 1),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise _out_of_range(name, f"a whole number from {low} to {high}", value)
        if not 0 <= self.noise <= 1:
            raise _out_of_range("noise", "a number from 0 to 1", self.noise)
        if self.channels not in (1, 3):
            raise _out_of_range("channels", "1 or 3", self.channels)
        if (self.train + self.val + self.test) * self.canvas**2 > 2**31:
            raise UsageError(
                expected="cluttered digits of at most 2 GiB",
                received=f"{self.train + self.val + self.test} scenes of {self.canvas} x {self.canvas} px",
                do="ask for fewer scenes or a smaller canvas",
            )


@dataclass(frozen=True)
class Scenes:
    """The scenes of one split.

    `images` uint8 and `masks` bool, both (N, H, W); `labels` int64 (N,); `boxes` int64 (N, 4), xyxy in pixels, half-open;
    `sources` is the source digit of each scene, `distractors` (N, fragments) those its fragments were cut from.
    """

    images: _Images
    labels: NDArray[np.int64]
    boxes: NDArray[np.int64]
    masks: NDArray[np.bool_]
    sources: NDArray[np.int64]
    distractors: NDArray[np.int64]


def make_scenes(options: DigitsOptions) -> dict[str, Scenes]:
    """Draw every split; no source digit serves in two of them, as target or as distractor.

    Raises:
        UsageError: scikit-learn is not installed.
    """
    digits, labels = _load()
    bank = _enlarge(digits, _sides(options.canvas))
    pools = _divide(labels, np.random.default_rng([options.seed, 0]))
    counts = (options.train, options.val, options.test)
    return {
        split: _draw(options, bank, labels, pool, count, np.random.default_rng([options.seed, 1 + k]))
        for k, (split, pool, count) in enumerate(zip(SPLITS, pools, counts, strict=True))
    }


def _out_of_range(name: str, expected: str, value: object) -> UsageError:
    return UsageError(expected=f"digits option {name}: {expected}", received=repr(value), do=f"choose {name} within that range")


def _load() -> tuple[_Images, NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise missing_extra("scikit-learn", "study") from None
    source: Any = load_digits()
    return source.images.astype(np.uint8), source.target.astype(np.int64)


def _divide(labels: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Stratified: every split gets its share of each class."""
    pools: list[list[NDArray[np.int64]]] = [[] for _ in SPLITS]
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(_SHARES[:-1]) * len(members)).astype(int)
        for pool, part in zip(pools, np.split(members, cuts), strict=True):
            pool.append(part)
    return [np.sort(np.concatenate(pool)) for pool in pools]


def _sides(canvas: int) -> list[int]:
    """The sides a digit comes in: the mean and up to 15 % less or more."""
    return sorted({round(canvas * _DIGIT * scale) for scale in (0.85, 0.92, 1.0, 1.08, 1.15)})


def _enlarge(digits: _Images, sides: list[int]) -> _Images:
    """(M, 8, 8) of 0..16 -> (len(sides), M, S, S) of 0..255, S the largest side; smaller digits lie at the top left."""
    bank = np.zeros((len(sides), len(digits), sides[-1], sides[-1]), np.uint8)
    padded = np.pad(digits.astype(np.int64), ((0, 0), (1, 1), (1, 1)))
    for level, side in zip(bank, sides, strict=True):
        weights = _cubic(10, side)
        smooth = weights @ padded @ weights.T
        # the middle greys are stretched, which turns the blur of the enlargement into a pen's edge
        level[:, :side, :side] = np.clip((smooth * 255 // (16 << 16) - 100) * 2, 0, 255)
    return bank


def _cubic(old: int, new: int) -> NDArray[np.int64]:
    """Catmull-Rom weights (new, old) in 1/256."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    t = np.abs(centres[:, None] - np.arange(old))
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.round(256 * np.where(t < 1, near, np.where(t < 2, far, 0))).astype(np.int64)


def _draw(
    options: DigitsOptions, bank: _Images, labels: NDArray[np.int64], pool: NDArray[np.int64], count: int, rng: np.random.Generator
) -> Scenes:
    sides = np.array(_sides(options.canvas))
    rounds = -(-count // len(pool))
    order = np.concatenate([rng.permutation(len(pool)) for _ in range(rounds)])[:count]
    others = (order[:, None] + 1 + rng.integers(len(pool) - 1, size=(count, options.fragments))) % len(pool)

    canvas = options.canvas
    # the margin takes the empty part of a small digit's patch, and is cut off
    images = np.zeros((count, canvas + sides[-1], canvas + sides[-1]), np.uint8)
    alone = np.zeros_like(images)
    for column in others.T:
        patches = _fragments(bank, sides, pool[column], options, rng)
        _stamp(images, patches, _corners(rng, canvas - np.full(count, patches.shape[1])))
    level = rng.integers(len(sides), size=count)
    _stamp(alone, bank[level, pool[order]], _corners(rng, canvas - sides[level]))
    images, alone = (np.ascontiguousarray(drawn[:, :canvas, :canvas]) for drawn in (images, alone))
    np.maximum(images, alone, out=images)
    if options.noise:
        width = round(255 * options.noise)
        noise = rng.integers(-width, width + 1, size=images.shape, dtype=np.int16)
        images = np.clip(images + noise, 0, 255).astype(np.uint8)
    masks = alone >= _INK
    return Scenes(images, labels[pool[order]], _boxes(masks), masks, pool[order], pool[others])


def _fragments(
    bank: _Images, sides: NDArray[np.int64], digits: NDArray[np.int64], options: DigitsOptions, rng: np.random.Generator
) -> _Images:
    """One square cut out of the inner part of each digit, (K,) -> (K, f, f): far too small to hold a digit."""
    size = max(3, round(options.canvas * _FRAGMENT))
    level = rng.integers(len(sides), size=len(digits))
    margin = sides[level] // 6  # the rim of a digit is mostly empty
    corner = _corners(rng, sides[level] - size - 2 * margin) + margin[:, None]
    rows, columns = corner[:, :1] + np.arange(size), corner[:, 1:] + np.arange(size)
    return bank[level[:, None, None], digits[:, None, None], rows[:, :, None], columns[:, None, :]]


def _corners(rng: np.random.Generator, room: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row and column (K, 2), each uniform over 0..room."""
    return rng.integers(room[:, None] + 1, size=(len(room), 2))


def _stamp(canvas: _Images, patches: _Images, corner: NDArray[np.int64]) -> None:
    """Lay one patch (K, p, p) on each canvas (K, H, H), the brighter pixel winning."""
    along = np.arange(patches.shape[1])
    place = np.arange(len(canvas))[:, None, None], (corner[:, :1] + along)[:, :, None], (corner[:, 1:] + along)[:, None, :]
    canvas[place] = np.maximum(canvas[place], patches)


def _boxes(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    (left, right), (top, bottom) = (_ends(np.any(masks, axis=axis)) for axis in (1, 2))
    return np.stack([left, top, right, bottom], axis=1)


def _ends(inked: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one past the last of the true places in each row."""
    return np.argmax(inked, axis=1), inked.shape[-1] - np.argmax(inked[:, ::-1], axis=1)
