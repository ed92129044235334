"""Sample order and augmentation seed of an epoch, from the seed of the run and the number of the epoch."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_EPOCHS = 100_000  # more than any run has, so two seeds never give the same augmentation seed


def order(indices: Any, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the indices in the order of an epoch, counted from 0."""
    return np.random.default_rng([seed, epoch]).permutation(indices)


def views(seed: int, epoch: int) -> int:
    """Return the augmentation seed for the `set_epoch` of a data set."""
    return (seed * _EPOCHS + epoch) % 2**63  # fits into int64, even for a seed from the clock
