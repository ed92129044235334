"""Parts of digit scenes: source digits, enlarged digits, fragments of them, and drawing them on a canvas."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.data.splits import SPLITS
from foveate.errors import UsageError, missing_extra

__all__ = [
    "CLASSES",
    "INK",
    "ORIGIN",
    "check_counts",
    "corners",
    "cut_fragments",
    "deal",
    "enlarge",
    "ink_boxes",
    "out_of_range",
    "source_digits",
    "stamp",
]

INK = 64  # of 255: a pixel of at least this value belongs to the digit
CLASSES = [str(digit) for digit in range(10)]
ORIGIN = {
    "source": "scikit-learn's load_digits (UCI, Optical Recognition of Handwritten Digits, CC BY 4.0)",
    "layout": "drawn by Foveate; no source digit is in two splits",
}
_SHARES = (0.70, 0.10, 0.20)  # of the source digits

_Images = NDArray[np.uint8]


def check_counts(options: Any, **ranges: tuple[int, int]) -> None:
    """Check the whole numbers among the options of a data set, and that its scenes fit into memory.

    Raises:
        UsageError: one is out of its range, or all scenes together exceed 2 GiB.
    """
    ranges |= dict.fromkeys(SPLITS, (10, 200_000)) | {"seed": (0, 2**63 - 1)}
    for name, (low, high) in ranges.items():
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise out_of_range(name, f"a whole number from {low} to {high}", value)
    scenes = options.train + options.val + options.test
    if scenes * options.canvas**2 > 2**31:
        raise UsageError(
            expected="digit scenes of at most 2 GiB",
            received=f"{scenes} scenes of {options.canvas} x {options.canvas} px",
            do="ask for fewer scenes or a smaller canvas",
        )


def out_of_range(name: str, expected: str, value: object) -> UsageError:
    """Return the error for an option of digit scenes."""
    return UsageError(
        expected=f"digits option {name}: {expected}", received=repr(value), do=f"choose {name} within that range"
    )


def source_digits() -> tuple[_Images, NDArray[np.int64]]:
    """Return scikit-learn's digits, uint8 (M, 8, 8) in 0..16, and their labels, int64 (M,).

    Raises UsageError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise missing_extra("scikit-learn", "study") from None
    source: Any = load_digits()
    return source.images.astype(np.uint8), source.target.astype(np.int64)


def deal(labels: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return the source digits of each split: no digit is in two splits, and each split has its share of each class."""
    pools: list[list[NDArray[np.int64]]] = [[] for _ in SPLITS]
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.round(np.cumsum(_SHARES[:-1]) * len(members)).astype(int)
        for pool, part in zip(pools, np.split(members, cuts), strict=True):
            pool.append(part)
    return [np.sort(np.concatenate(pool)) for pool in pools]


def enlarge(digits: _Images, sides: list[int]) -> _Images:
    """Enlarge digits smoothly: (M, 8, 8) in 0..16 -> (len(sides), M, S, S) in 0..255.

    S is the largest side; smaller digits are in the top left corner.
    """
    bank = np.zeros((len(sides), len(digits), sides[-1], sides[-1]), np.uint8)
    padded = np.pad(digits.astype(np.int64), ((0, 0), (1, 1), (1, 1)))
    for level, side in zip(bank, sides, strict=True):
        weights = _cubic(10, side)
        smooth = weights @ padded @ weights.T
        # higher contrast in the middle greys turns the blur of the enlargement into an edge of ink
        level[:, :side, :side] = np.clip((smooth * 255 // (16 << 16) - 100) * 2, 0, 255)
    return bank


def _cubic(old: int, new: int) -> NDArray[np.int64]:
    """Catmull-Rom weights (new, old) in 1/256."""
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    t = np.abs(centres[:, None] - np.arange(old))
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.round(256 * np.where(t < 1, near, np.where(t < 2, far, 0))).astype(np.int64)


def cut_fragments(
    bank: _Images, sides: NDArray[np.int64], digits: NDArray[np.int64], size: int, rng: np.random.Generator
) -> _Images:
    """Cut one square out of the inner part of each digit, (K,) -> (K, size, size); no square holds a whole digit."""
    level = rng.integers(len(sides), size=len(digits))
    margin = sides[level] // 6  # the rim of a digit is mostly empty
    corner = corners(rng, sides[level] - size - 2 * margin) + margin[:, None]
    rows, columns = corner[:, :1] + np.arange(size), corner[:, 1:] + np.arange(size)
    return bank[level[:, None, None], digits[:, None, None], rows[:, :, None], columns[:, None, :]]


def corners(rng: np.random.Generator, room: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw row and column (K, 2), each uniform over 0..room."""
    return rng.integers(room[:, None] + 1, size=(len(room), 2))


def stamp(canvas: _Images, patches: _Images, corner: NDArray[np.int64]) -> None:
    """Draw one patch (K, p, p) on each canvas (K, H, H); the brighter pixel stays."""
    along = np.arange(patches.shape[1])
    place = (
        np.arange(len(canvas))[:, None, None],
        (corner[:, :1] + along)[:, :, None],
        (corner[:, 1:] + along)[:, None, :],
    )
    canvas[place] = np.maximum(canvas[place], patches)


def ink_boxes(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the tight box of each mask, (N, H, W) -> (N, 4), xyxy in pixels, half-open."""
    (left, right), (top, bottom) = (_ends(np.any(masks, axis=axis)) for axis in (1, 2))
    return np.stack([left, top, right, bottom], axis=1)


def _ends(inked: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first True index in each row, and the last one + 1."""
    return np.argmax(inked, axis=1), inked.shape[-1] - np.argmax(inked[:, ::-1], axis=1)
