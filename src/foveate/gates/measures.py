"""Numbers that say what a gate does to images: where its mass lies, how even it is, and whether it is dead."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveate.gates.colour import UNCHANGED
from foveate.gates.kinds import CHANNEL_KINDS, PAIRS
from foveate.gates.pointing_game import shares_in_boxes

Array = NDArray[np.float64]
MEASURES = ("inside", "area", "entropy", "saturated")
_END = 0.01  # of a gate's range


def measure(
    kind: str,
    gate: NDArray,
    limits: tuple[float, float] | None = None,
    boxes: Sequence[ArrayLike] | NDArray | None = None,
    size: tuple[int, int] | None = None,
    within: ArrayLike | None = None,
) -> Array:
    """Return `MEASURES` of a gate (n, C, h, w) for each image as (n, 4); NaN where there is none.

    `boxes` (M, 4) of each image of `size` (H, W) are x0, y0, x1, y1 in its pixels, and so is `within` (n, 4), the part
    of each image that counts if the rest is a border. `inside` is the share of the gate in the boxes (of the heights or
    widths that they cover for a row or column gate), `area` what a constant gate would have. `entropy` is that of the
    gate's cells, or channels, over its greatest value. `saturated` is the share of values within 1 % of `limits`.
    """
    found = np.full((len(gate), len(MEASURES)), np.nan)
    cells = gate[:, :, 0, 0] if kind in CHANNEL_KINDS else gate.mean(1)
    found[:, 2] = entropy(cells)
    if limits is not None:
        low, high = limits
        near = (gate <= low + _END * (high - low)) | (gate >= high - _END * (high - low))
        found[:, 3] = near.reshape(len(gate), -1).mean(1)
    if boxes is not None and size is not None and kind not in CHANNEL_KINDS:
        boxes = [np.asarray(some, float).reshape(-1, 4) for some in boxes]
        parts = [[0, 0, size[1], size[0]]] * len(gate) if within is None else within
        found[:, :2] = shares_in_boxes(kind, cells, boxes, np.asarray(parts, float), size)
    return found


def entropy(cells: NDArray) -> Array:
    """Return the entropy of each row of cells as a distribution, divided by its greatest value: 1 is uniform.

    Negative cells count as 0; a row without mass is NaN, and so is one of a single cell.
    """
    mass = np.nan_to_num(np.asarray(cells, float), nan=0, posinf=0, neginf=0).clip(0).reshape(len(cells), -1)
    total = mass.sum(1, keepdims=True)
    share = np.divide(mass, total, out=np.full_like(mass, np.nan), where=total > 0)
    greatest = np.log(mass.shape[1]) if mass.shape[1] > 1 else np.nan
    return -np.where(share > 0, share * np.log(np.where(share > 0, share, 1)), share * 0).sum(1) / greatest


class Spread:
    """The extremes of a gate over images that come batch by batch, and what they say about it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.count, self.flat, self.farthest = 0, 0.0, 0.0
        self.lowest, self.highest = np.float64(np.inf), np.float64(-np.inf)

    def add(self, gate: NDArray) -> None:
        """Add the gate (n, C, h, w) of n images."""
        self.count += len(gate)
        self.flat = max(self.flat, float(np.ptp(gate.reshape(len(gate), -1), axis=1).max()))
        self.farthest = max(self.farthest, float(np.abs(gate - 1).max()))
        self.lowest, self.highest = np.minimum(self.lowest, gate.min(0)), np.maximum(self.highest, gate.max(0))

    @property
    def dead(self) -> str:
        """Return why the gate is dead: it does nothing, is constant, or is the same for every image; "" if alive."""
        even = self.flat < UNCHANGED
        same = self.count > 1 and float(np.max(self.highest - self.lowest)) < UNCHANGED
        if self.kind in PAIRS:
            what = "position" if self.kind == "pairwise" else "channel"
            return f"reads every {what} alike" if even else "the same for every image" if same else ""
        if self.farthest < UNCHANGED:
            return "changes the features by less than 1 %"
        if even and same:
            return f"constant: {float(np.mean(self.lowest)):.3g} everywhere, for every image"
        if even:
            return "constant within each image"
        return "the same for every image" if same else ""
