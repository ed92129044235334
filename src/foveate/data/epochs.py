"""What an epoch of a training shows: which pictures after which, and which view of each, by seed and epoch alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_EPOCHS = 100_000  # more than any run has, so that no two seeds share their views


def order(indices: Any, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the indices as they follow each other in an epoch, counted from 0."""
    return np.random.default_rng([seed, epoch]).permutation(indices)


def views(seed: int, epoch: int) -> int:
    """Return what a data set's `set_epoch` is told, so that its augmentations are those of the seed and the epoch."""
    return (seed * _EPOCHS + epoch) % 2**63  # held as int64; a seed from the clock is large enough to leave that
