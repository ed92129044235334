"""One colour map for every attention map, dark to light, and one set of colours for classes; without torch or matplotlib."""

import numpy as np
from numpy.typing import NDArray

# Equally spaced anchors of matplotlib's inferno (CC0): lightness grows evenly, also in grey and for the colour-blind.
_ANCHORS = np.array(
    [[0, 0, 4], [31, 12, 72], [85, 15, 109], [136, 34, 106], [186, 54, 85], [227, 89, 51], [249, 140, 10], [249, 201, 50], [252, 255, 164]],
    float,
)

# Okabe and Ito's colours, told apart by the colour-blind too, the faintest on paper last.
CATEGORIES = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (0, 114, 178), (213, 94, 0), (204, 121, 167), (240, 228, 66))


def palette(levels: int = 256) -> NDArray[np.uint8]:
    """Return the colour map as (levels, 3) RGB."""
    at = np.linspace(0, len(_ANCHORS) - 1, levels)
    return np.stack([np.interp(at, np.arange(len(_ANCHORS)), channel) for channel in _ANCHORS.T], 1).round().astype(np.uint8)


def unit(gate: NDArray, low: float | None = None, high: float | None = None) -> NDArray[np.float64]:
    """Return the map stretched to 0..1 between `low` and `high` (its own extremes by default); a flat map becomes 0.5."""
    gate = np.nan_to_num(np.asarray(gate, float), nan=0.0, posinf=0.0, neginf=0.0)
    low = float(gate.min()) if low is None else low
    high = float(gate.max()) if high is None else high
    if high - low < 1e-6:
        return np.full(gate.shape, 0.5)
    return ((gate - low) / (high - low)).clip(0, 1)
