"""The arm + seed model: least squares over the cells that ran, and the check of equal variances."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_DRAWS = 10_000


@dataclass(frozen=True, eq=False)
class TwoWayModel:
    """The additive model accuracy = arm + seed + noise over one pattern of cells; arm 0 is the baseline."""

    ran: NDArray[np.bool_]  # (arms, seeds)
    solve: Array  # (arms - 1, cells): cells to differences from the baseline
    project: Array  # (cells, cells): cells to residuals
    covariance: Array  # (arms - 1, arms - 1): of the differences, at unit noise
    df: int

    def residuals(self, values: Array) -> Array:
        """Return what arm and seed do not explain, cell by cell, for values `(..., cells)`."""
        return values @ self.project

    def heterogeneity(self, values: Array) -> Array:
        """Return the sum of the arms' squared shares of the residual variance: 1 / arms if all are equal, at most 1."""
        return (self.shares(values) ** 2).sum(-1)

    def shares(self, values: Array) -> Array:
        """Return each arm's share of the residual variance, by its degrees of freedom, for values `(..., cells)`."""
        owner = np.nonzero(self.ran)[0][:, None] == np.arange(len(self.ran))
        freedom = np.diag(self.project) @ owner
        variance = np.where(freedom > 1e-9, (self.residuals(values) ** 2 @ owner) / np.maximum(freedom, 1e-9), 0)
        return variance / variance.sum(-1, keepdims=True)


def fit_two_way(ran: NDArray[np.bool_]) -> TwoWayModel:
    """Return the least squares for this pattern of cells `(arms, seeds)`; every arm must be `joined` to arm 0."""
    return _fit_two_way(ran.tobytes(), ran.shape)


def joined(ran: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which arms can be compared with arm 0: those that share a seed with it, directly or through other arms."""
    arms = np.zeros(len(ran), dtype=bool)
    arms[0] = ran[0].any()
    while True:
        wider = np.any(ran[:, np.any(ran[arms], axis=0)], axis=1)
        if np.array_equal(wider, arms):
            return arms
        arms = wider


def unequal_spread(model: TwoWayModel, values: Array) -> tuple[Array, Array]:
    """Return the heterogeneity of the arms' variances and its p value, for values `(..., cells)`.

    This is John's (1971) statistic. Bartlett's, with 2 or 3 seeds, depends most on variances that are near zero by
    chance, and misses the one noisy arm that matters. The null distribution of John's statistic depends on nothing
    unknown, so simulating it for the given pattern of cells gives an exact test at any size (measured on 20,000 null
    studies of 7 arms at 5 %: 4.8, 5.1, 4.5, 5.0 % for 2, 3, 5, 10 seeds). It is scale free and thus independent of the
    pooled variance (Basu): choosing Dunnett by it does not change Dunnett's own error rate. Few seeds limit its power:
    if one arm of 7 has four times the noise, the whole procedure gives false alarms in 12, 8 and 5 % of null studies at
    3, 5 and 10 seeds; Dunnett without the check, in 14, 13 and 12 %.
    """
    observed = model.heterogeneity(values)
    null = _null(model.ran.tobytes(), model.ran.shape)
    return observed, (1 + len(null) - np.searchsorted(null, observed * (1 - 1e-9))) / (1 + len(null))


@lru_cache(maxsize=256)
def _fit_two_way(pattern: bytes, shape: tuple[int, int]) -> TwoWayModel:
    ran = np.frombuffer(pattern, dtype=bool).reshape(shape)
    arm, seed = np.nonzero(ran)
    design = np.hstack([arm[:, None] == np.arange(1, shape[0]), seed[:, None] == np.arange(shape[1])]).astype(float)
    inverse = np.linalg.pinv(design)
    differences = inverse[: shape[0] - 1]
    return TwoWayModel(
        ran=ran,
        solve=differences,
        project=np.eye(len(arm)) - design @ inverse,
        covariance=differences @ differences.T,
        df=int(len(arm) - shape[0] - ran.any(0).sum() + 1),
    )


@lru_cache(maxsize=256)
def _null(pattern: bytes, shape: tuple[int, int]) -> Array:
    model = _fit_two_way(pattern, shape)
    noise = np.random.default_rng(0).normal(size=(_DRAWS, int(model.ran.sum())))
    return np.sort(model.heterogeneity(noise))
