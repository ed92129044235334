"""Several arms against one baseline: the largest of their t statistics (Dunnett 1955), and Holm's step-down."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

Array = NDArray[np.float64]

_FACTOR_NODES, _FACTOR_END, _TAIL = 32, 8.5, 1e-13


def coverage(bound: float, loadings: Sequence[float], df: int) -> float:
    """Return P(every |t_i| <= bound) for one shared variance estimate and corr(i, j) = loadings[i] * loadings[j].

    Given the common factor z and the scale s = sqrt(chi2 / df), the t_i are independent, so two nested sums suffice.
    Both integrands are analytic and vanish at both ends, so the plain trapezoid rule converges faster than any power of
    its step.
    """
    scale, weight = _scale(df)
    factor = np.linspace(0, _FACTOR_END, _FACTOR_NODES)
    density = np.exp(-(factor**2) / 2)
    density[0] /= 2  # the integrand is even in z: half the axis, and half the weight of its end point
    inside = np.ones((len(scale), len(factor)))
    values, counts = np.unique(np.round(loadings, 9), return_counts=True)
    for loading, count in zip(values, counts, strict=True):
        own = np.sqrt(1 - loading**2)
        centre, reach = loading * factor / own, bound * scale[:, None] / own
        inside *= (special.ndtr(centre + reach) - special.ndtr(centre - reach)) ** int(count)
    return float(np.clip(weight @ inside @ density / density.sum(), 0, 1))


def critical_value(loadings: Sequence[float], df: int, level: float = 0.95) -> float:
    """Return the bound for which P(every |t_i| <= bound) is `level`."""
    return _critical_value(tuple(sorted(round(float(loading), 9) for loading in loadings)), df, level)


def adjusted_p(t: ArrayLike, loadings: Sequence[float], df: int) -> Array:
    """Return, for each t, the probability that the largest |t_i| is at least as large if no arm has an effect."""
    return np.array([1 - coverage(abs(float(one)), loadings, df) for one in np.atleast_1d(t)])


def factor_loadings(correlation: ArrayLike) -> Array:
    """Return the loadings whose products are nearest (least squares) to the correlations off the diagonal.

    Exact for complete layouts (1/2 everywhere) and for two or three contrasts; otherwise the factor-analytic
    approximation of Hsu (1992), which keeps the integral two-dimensional for any number of arms.
    """
    target = np.array(correlation, dtype=float)
    np.fill_diagonal(target, 0)
    loadings = np.full(len(target), np.sqrt(0.5))
    if len(target) == 2:
        return np.sqrt(np.clip(np.array([target[0, 1], target[0, 1]]), 0, None))
    for _ in range(200):
        before = loadings.copy()
        for i in range(len(target)):
            others = loadings @ loadings - loadings[i] ** 2
            if others > 0:
                loadings[i] = np.clip(target[i] @ loadings / others, 0, 0.99)
        if np.abs(loadings - before).max() < 1e-10:
            break
    return loadings


def holm(p: ArrayLike) -> Array:
    """Return Holm's adjusted p values, in the order given."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


@lru_cache(maxsize=4096)
def _critical_value(loadings: tuple[float, ...], df: int, level: float) -> float:
    single = float(special.stdtrit(df, (1 + level) / 2))
    bonferroni = float(special.stdtrit(df, 1 - (1 - level) / (2 * len(loadings))))
    if len(loadings) == 1:
        return single
    root: Any = optimize.brentq(
        lambda bound: coverage(bound, loadings, df) - level, 0.99 * single, 1.01 * bonferroni, xtol=1e-10
    )
    return float(root)


@lru_cache(maxsize=1024)
def _scale(df: int) -> tuple[Array, Array]:
    """Return nodes and weights for s = sqrt(chi2 / df), evenly spaced in log s, where the density is always smooth."""
    low, high = 2 * special.gammaincinv(df / 2, _TAIL), 2 * special.gammainccinv(df / 2, _TAIL)
    log_s = np.arange(
        np.log(low / df) / 2, np.log(high / df) / 2, 0.45 / np.sqrt(2 * df)
    )  # about half the spread of log s
    log_density = df * log_s - df * np.exp(2 * log_s) / 2
    density = np.exp(log_density - log_density.max())
    return np.exp(log_s), density / density.sum()
