import gc
from typing import Any, cast

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from foveate.studies.dunnett import adjusted_p, coverage, critical_value, factor_loadings, holm
from foveate.studies.two_way import fit_two_way

HALF = np.sqrt(0.5)


def multivariate_t(correlation: np.ndarray, df: int, bound: float) -> float:
    law: Any = stats.multivariate_t(np.zeros(len(correlation)), cast(Any, correlation), df=df, seed=1)
    return float(law.cdf(np.full(len(correlation), bound), lower_limit=np.full(len(correlation), -bound)))


# Dunnett (1964), two-sided, for 1 to 9 arms besides the control; some printed values are off by one in the last digit
@pytest.mark.parametrize(
    ("level", "df", "table"),
    [
        (0.95, 5, [2.57, 3.03, 3.29, 3.48, 3.62, 3.73, 3.82, 3.90, 3.97]),
        (0.95, 10, [2.23, 2.57, 2.76, 2.89, 2.99, 3.07, 3.14, 3.19, 3.24]),
        (0.95, 20, [2.09, 2.38, 2.54, 2.65, 2.73, 2.80, 2.86, 2.90, 2.95]),
        (0.99, 5, [4.03, 4.63, 4.98, 5.22, 5.41, 5.56, 5.69, 5.80, 5.89]),
        (0.99, 10, [3.17, 3.53, 3.74, 3.88, 3.99, 4.08, 4.16, 4.22, 4.28]),
    ],
)
def test_critical_values_are_the_published_ones(level: float, df: int, table: list[float]):
    ours = [critical_value([HALF] * arms, df, level) for arms in range(1, 10)]
    np.testing.assert_allclose(ours, table, atol=0.0101)


@pytest.mark.parametrize(("arms", "df"), [(2, 2), (3, 4), (6, 12), (6, 24), (9, 50), (6, 6000)])
def test_coverage_is_that_of_the_multivariate_t(arms: int, df: int):
    bound = critical_value([HALF] * arms, df)
    shape = np.full((arms, arms), 0.5) + 0.5 * np.eye(arms)
    assert multivariate_t(shape, df, bound) == pytest.approx(0.95, abs=2e-4)


@pytest.mark.parametrize("sizes", [(5, 5, 5, 5), (8, 4, 5, 9, 3)])
@pytest.mark.reliability(21)
def test_p_values_and_intervals_are_those_of_scipy_dunnett(sizes: tuple[int, ...]):
    rng = np.random.default_rng(4)
    control, *samples = [
        rng.normal(shift, 1, size) for shift, size in zip((0, 0.4, 1.5, -0.9, 2.2), sizes, strict=False)
    ]
    oracle = stats.dunnett(*samples, control=control, rng=np.random.default_rng(0))
    counts = np.array([len(sample) for sample in samples])
    loadings = np.sqrt(counts / (counts + len(control))).tolist()
    df = sum(sizes) - len(sizes)
    np.testing.assert_allclose(adjusted_p(oracle.statistic, loadings, df), oracle.pvalue, atol=1e-3)

    pooled = np.sqrt(sum(((sample - sample.mean()) ** 2).sum() for sample in (control, *samples)) / df)
    half = critical_value(loadings, df) * pooled * np.sqrt(1 / counts + 1 / len(control))
    interval = oracle.confidence_interval(0.95)
    np.testing.assert_allclose(half, (interval.high - interval.low) / 2, rtol=5e-3)


def test_the_correlation_matters():
    assert abs(coverage(2.5, [0.0] * 6, 24) - coverage(2.5, [HALF] * 6, 24)) > 0.01
    assert critical_value([0.0] * 6, 24) > critical_value([HALF] * 6, 24) > critical_value([0.95] * 6, 24)


@pytest.mark.parametrize("seed", range(6))
def test_missing_trials_are_integrated_closely(seed: int):
    rng = np.random.default_rng(seed)
    ran = rng.random((6, 5)) > 0.25
    ran[:, 0] = True
    covariance = fit_two_way(ran).covariance
    unit = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(unit, unit)
    df = fit_two_way(ran).df
    bound = critical_value(factor_loadings(correlation).tolist(), df)
    assert multivariate_t(correlation, df, bound) == pytest.approx(0.95, abs=5e-4)


def test_loadings_of_a_product_correlation_are_found():
    truth = np.array([0.3, 0.5, 0.7, 0.9])
    np.testing.assert_allclose(factor_loadings(np.outer(truth, truth)), truth, atol=1e-6)
    pair = factor_loadings([[1, 0.4], [0.4, 1]])
    assert pair[0] * pair[1] == pytest.approx(0.4)


def test_adjusted_p_and_critical_value_agree():
    bound = critical_value([HALF] * 6, 12, 0.95)
    assert adjusted_p([bound, -bound], [HALF] * 6, 12) == pytest.approx([0.05, 0.05], abs=1e-8)
    assert adjusted_p([0.0, 50.0], [HALF] * 6, 12) == pytest.approx([1.0, 0.0], abs=1e-9)


@pytest.mark.reliability(21)
def test_holm_is_that_of_statsmodels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels collects garbage in each call
    rng = np.random.default_rng(0)
    for case in range(30):
        p = rng.random(rng.integers(1, 9)) ** 3
        p = np.round(p, 1) if case % 3 == 0 else p  # ties
        oracle: Any = multipletests(p, method="holm")[1]
        np.testing.assert_allclose(holm(p), oracle, atol=1e-12)
