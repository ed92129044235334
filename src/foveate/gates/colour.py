"""Colours: one scale for every gate, and one set for classes; without torch or matplotlib."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

# From blue (0: closed) over grey (1: unchanged) to red (2: doubled). Both ends become darker by the same amount, and
# colour-blind readers can distinguish them.
_SCALE = np.array(
    [[8, 29, 88], [50, 110, 178], [134, 172, 202], [180, 184, 188], [216, 164, 138], [200, 82, 52], [103, 0, 13]], float
)
UNCHANGED = 0.01  # a gate that changes the features by less is grey

# Okabe and Ito's colours, which colour-blind readers can distinguish; the least visible on paper comes last.
CATEGORIES = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
    (240, 228, 66),
)


def palette(levels: int) -> NDArray[np.uint8]:
    """Return the scale of gates from 0 to 2 as (levels, 3) RGB; an odd number of levels has 1 in the middle."""
    at = np.linspace(0, len(_SCALE) - 1, levels)
    return (
        np.stack([np.interp(at, np.arange(len(_SCALE)), channel) for channel in _SCALE.T], 1).round().astype(np.uint8)
    )


def place(gate: ArrayLike) -> NDArray[np.float64]:
    """Return the place of gates on the scale, the same for every gate: 0 at gate 0, 0.5 at 1, 1 at 2 and above.

    The distance from 0.5 is the square root of the change, so that a few percent are visible; below 1 % it is 0.
    """
    change = np.nan_to_num(np.asarray(gate, float), nan=1.0, posinf=2.0, neginf=0.0).clip(0, 2) - 1
    change[np.abs(change) < UNCHANGED] = 0
    return 0.5 + np.sign(change) * np.sqrt(np.abs(change)) / 2
