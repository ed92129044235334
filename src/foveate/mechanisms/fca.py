"""FcaNet's multi-spectral channel attention: squeeze-and-excitation of several frequencies instead of the mean."""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from foveate.checks import check_choice, check_least, check_reduction
from foveate.errors import UsageError
from foveate.ops import Array, Bound, Ops
from foveate.parts import Constant, Conv, Gate, Parts
from foveate.spec import Mechanism, hidden_units

COUNTS = (1, 2, 4, 8, 16, 32)
FREQUENCIES = {  # the pairs (u, v) that the authors found best, the lowest ones, and the worst
    "top": "00 01 60 05 02 10 12 40 50 16 30 04 06 03 35 22 46 63 33 53 55 21 61 52 54 32 31 41 23 20 65 13",
    "low": "00 01 10 11 02 20 21 12 22 03 30 40 04 13 31 05 14 23 32 41 50 06 15 24 33 42 51 60 16 25 34 43",
    "bot": "66 14 34 36 26 43 11 24 44 45 56 15 42 62 25 51 64 13 65 20 23 41 31 32 54 52 61 21 55 53 33 63",
}


@dataclass(frozen=True)
class Fca(Mechanism):
    """y = x * sigmoid(W2 relu(W1 f)), one gate per channel; (N, C, H, W) -> (N, C, H, W).

    f is the sum over positions of x, pooled to `grid`, times a cosine basis: each of the `frequencies` has its share of
    the channels, "top16" those of the 16 best. The paper's grids in ResNet-50 have 56, 28, 14 and 7 rows.
    """

    reduction: float = 16
    frequencies: str = "top16"
    grid: tuple[int, int] = (7, 7)

    name: ClassVar[str] = "fca"
    paper: ClassVar[str] = (
        "Qin et al., FcaNet: Frequency Channel Attention Networks, ICCV 2021, arXiv:2012.11879, equations 9 to 14"
    )

    def __post_init__(self):
        check_reduction(self.reduction)
        check_choice("frequencies", self.frequencies, tuple(f"{kind}{n}" for kind in FREQUENCIES for n in COUNTS))
        if not isinstance(self.grid, list | tuple) or len(self.grid) != 2:
            raise UsageError(
                expected="grid as a height and a width", received=repr(self.grid), do="pass (7, 7), or leave grid out"
            )
        for length in self.grid:
            check_least("each of grid", length, 7, "pass 7 or more: below, every frequency would be the mean")
        object.__setattr__(self, "grid", tuple(self.grid))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The frequencies along the height and the width, of a map of 7 x 7."""
        kind, count = self.frequencies[:3], int(self.frequencies[3:])
        return [(int(u), int(v)) for u, v in FREQUENCIES[kind].split()[:count]]

    def parts(self, channels: int) -> Parts:
        share, left = divmod(channels, len(self.pairs))
        if left:
            most = max(count for count in COUNTS if channels % count == 0)
            raise UsageError(
                expected=f"channels that the {len(self.pairs)} frequencies of {self.frequencies!r} divide",
                received=f"{channels} channels",
                do=f"pass frequencies='{self.frequencies[:3]}{most}'",
            )
        hidden = hidden_units(channels, self.reduction)
        return {
            "basis": Constant(tuple(cosines(*pair, *self.grid) for pair in self.pairs for _ in range(share))),
            "reduce": Conv(channels, hidden, bias=False),
            "expand": Conv(hidden, channels, bias=False, last=True),
            "gate": Gate("channel"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        spectrum = F.sum(p.basis(F.adaptive_pool(x, "mean", self.grid)), F.hw)
        return p.gate(x, p.expand(F.relu(p.reduce(spectrum))))


@cache
def cosines(u: int, v: int, height: int, width: int) -> tuple[tuple[float, ...], ...]:
    """Return the basis function of a frequency, which belongs to a map of 7 x 7, on a map of this size."""
    rows, columns = cosine(u * (height // 7), height), cosine(v * (width // 7), width)
    return tuple(tuple(row * column for column in columns) for row in rows)


def cosine(frequency: int, length: int) -> list[float]:
    """Return the basis function of a frequency along one axis."""
    scale = math.sqrt((2 if frequency else 1) / length)
    return [scale * math.cos(math.pi * frequency * (i + 0.5) / length) for i in range(length)]
