"""Latencies, measured in interleaved rounds, and the ratio of two models with its interval."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

LEVEL = 0.99  # of each interval, so that an arm without cost is called slower in fewer than 5 of 100 studies
FLOOR = 0.01  # of the ratio: two copies of one model differ by up to this much, by their places in memory


@dataclass(frozen=True)
class Ratio:
    """A ratio of two latencies and its interval; `distinguishable` if the interval leaves out 1."""

    ratio: float
    low: float
    high: float

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out 1."""
        return not self.low <= 1 <= self.high

    def to_dict(self) -> dict[str, Any]:
        """Return the ratio, ready for JSON."""
        return {**asdict(self), "distinguishable": self.distinguishable}


def compare_timings(baseline: ArrayLike, other: ArrayLike) -> Ratio:
    """Return the median of other / baseline over the rounds, with an interval that assumes no distribution.

    Both timings must be of the same rounds: what slows a whole round down then cancels in its ratio. The interval is
    that of the sign test, widened by `FLOOR` on both sides.
    """
    logs = np.sort(np.log(np.asarray(other, float)) - np.log(np.asarray(baseline, float)))
    rounds = len(logs)
    rank = max(0, int(binom.ppf((1 - LEVEL) / 2, rounds, 0.5)) - 1)
    middle, low, high = float(np.median(logs)), float(logs[rank]), float(logs[rounds - 1 - rank])
    return Ratio(math.exp(middle), math.exp(low) / (1 + FLOOR), math.exp(high) * (1 + FLOOR))


def summary(seconds: NDArray[np.float64], baseline: NDArray[np.float64]) -> dict[str, float]:
    """Return the median and the quartiles in milliseconds, and the ratio to the timings of a baseline."""
    q1, median, q3 = (round(1000 * float(value), 4) for value in np.quantile(seconds, (0.25, 0.5, 0.75)))
    ratio = compare_timings(baseline, seconds)
    return {"ms": median, "q1": q1, "q3": q3, "ratio": ratio.ratio, "low": ratio.low, "high": ratio.high}


def time_rounds(
    calls: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    least: int = 15,
    most: int = 200,
    before: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, NDArray[np.float64]]:
    """Time every call once per round, in a new random order each round; return seconds by name, one value per round.

    Before each timed call, `before` or else the call itself runs untimed, so that the caches are not those that another
    call left.
    """
    for call in calls.values():
        call()
    began = clock()
    names, rng, rounds = list(calls), np.random.default_rng(0), []
    while len(rounds) < least or (len(rounds) < most and clock() - began < seconds):
        rounds.append({names[k]: _timed(calls[names[k]], before, clock) for k in rng.permutation(len(names))})
    return {name: np.array([one[name] for one in rounds]) for name in names}


def _timed(call: Callable[[], object], before: Callable[[], object] | None, clock: Callable[[], float]) -> float:
    (before or call)()
    began = clock()
    call()
    return clock() - began
