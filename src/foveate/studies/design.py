"""The number of seeds of a study: fixed, or one more after each look until every arm is decided.

The error rate of a sequential study is that of a single look. After each of its seeds the intervals are repeated
confidence intervals (Jennison & Turnbull 1989): at n seeds they are taken at the nominal error rate c * (n / most)**3,
with c such that, if no arm has any effect, the chance of a false "helps" or "hurts" at any look is 5 %. c is found by
simulating the whole procedure (`null_minima`), the check of equal variances and its fallback included. The exponent 3
spends little on the first seeds, where neither the variance nor the equality of variances is known well:
docs/design/verdict.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from foveate.studies.dunnett import coverage

Array = NDArray[np.float64]

SEQUENTIAL_CHECK, FIXED_CHECK = 0.25, 0.05  # levels of the check of equal variances
_POWER = 3
_DRAWS, _CHUNK = 20_000, 2_000
_SMALLEST = 1e-12  # p value that `coverage` can distinguish from 0


@dataclass(frozen=True)
class Design:
    """From `least` to `most` seeds for each arm, with a look after each from `least` on; `seeds` of them have run."""

    least: int
    most: int
    seeds: int

    @property
    def kind(self) -> Literal["fixed", "sequential"]:
        """Whether the number of seeds was fixed beforehand."""
        return "fixed" if self.least == self.most else "sequential"

    @property
    def looks(self) -> int:
        """The number of looks so far."""
        return max(0, self.seeds - self.least + 1)

    @property
    def check_level(self) -> float:
        """The level of the check of equal variances; higher for a sequential study, which can add a seed instead."""
        return FIXED_CHECK if self.kind == "fixed" else SEQUENTIAL_CHECK

    def level(self, arms: int, level: float) -> float:
        """Return the level of the intervals at this look, such that all intervals of all looks hold with `level`."""
        if self.kind == "fixed":
            return level
        minima = null_minima(arms, self.least, self.most)
        return 1 - float(np.quantile(minima, 1 - level)) * self._weight

    def overall(self, p: Array, arms: int) -> Array:
        """Return p values that allow for every look, from those of this look, which allow for the number of arms."""
        if self.kind == "fixed":
            return p
        minima, ratio = null_minima(arms, self.least, self.most), p / self._weight
        simulated = (1 + np.searchsorted(minima, ratio, side="right")) / (1 + len(minima))
        bonferroni = ratio * sum(_weight(n, self.most) for n in range(self.least, self.most + 1))
        # The simulation cannot give p values below 1 / draws; the bound of Bonferroni can.
        return np.where(ratio < minima[0], np.minimum(simulated, bonferroni), simulated)

    def to_dict(self) -> dict[str, Any]:
        """Return `{"kind", "least", "most", "looks"}`, ready for JSON."""
        return {"kind": self.kind, "least": self.least, "most": self.most, "looks": self.looks}

    @property
    def _weight(self) -> float:
        return _weight(min(max(self.seeds, self.least), self.most), self.most)


@lru_cache(maxsize=64)
def null_minima(arms: int, least: int, most: int) -> Array:
    """Return, sorted, the smallest p / (n / most)**3 over the looks of simulated studies without any effect.

    `arms` does not count the baseline. p is the smallest adjusted p value of a look: Dunnett's, or if the check of
    equal variances rejects, that of the paired tests by Bonferroni.
    """
    looks = range(least, most + 1)
    dunnett = {n: _dunnett_p(arms, arms * (n - 1)) for n in looks}
    rng, found = np.random.default_rng(0), []
    for _ in range(_DRAWS // _CHUNK):
        noise = rng.normal(size=(_CHUNK, arms + 1, most))
        found.append(np.min([_look(noise[:, :, :n], dunnett[n]) / _weight(n, most) for n in looks], axis=0))
    return np.sort(np.concatenate(found))


def _look(noise: Array, dunnett: tuple[Array, Array]) -> Array:
    """Return the smallest adjusted p of each study, for noise `(studies, 1 + arms, seeds)`."""
    _, rows, seeds = noise.shape
    gaps = noise[:, 1:] - noise[:, :1]
    mean = gaps.mean(-1)
    centred = noise - noise.mean(1, keepdims=True)
    squares = ((centred - centred.mean(2, keepdims=True)) ** 2).sum(2)
    pooled = squares.sum(1) / ((rows - 1) * (seeds - 1))
    t, log_p = dunnett
    by_all = np.exp(np.interp(np.abs(mean).max(1) / np.sqrt(2 * pooled / seeds), t, log_p))
    if rows == 2:
        return by_all
    own = np.abs(mean) / gaps.std(-1, ddof=1) * np.sqrt(seeds)
    by_pairs = np.minimum(1, (rows - 1) * 2 * special.stdtr(seeds - 1, -own.max(1)))
    scatter = ((squares / squares.sum(1, keepdims=True)) ** 2).sum(1)  # John's statistic
    return np.where(scatter < np.quantile(scatter, 1 - SEQUENTIAL_CHECK), by_all, by_pairs)


def _dunnett_p(arms: int, df: int) -> tuple[Array, Array]:
    """Return a table for interpolation: values of t, and the logarithm of Dunnett's p for each."""
    loadings: Sequence[float] = [float(np.sqrt(0.5))] * arms
    t = np.concatenate([np.linspace(0, 8, 60), np.geomspace(8.2, 2000, 60)])
    p = np.minimum.accumulate([max(1 - coverage(one, loadings, df), _SMALLEST) for one in t])
    return t, np.log(p)


def _weight(seeds: int, most: int) -> float:
    return (seeds / most) ** _POWER
