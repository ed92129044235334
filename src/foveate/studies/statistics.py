"""The study's judgement: which arms differ from the baseline, with simultaneous intervals in accuracy points."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from foveate.errors import UsageError, nearest
from foveate.studies.design import Design
from foveate.studies.dunnett import adjusted_p, critical_value, factor_loadings, holm
from foveate.studies.two_way import TwoWayModel, fit_two_way, joined, unequal_spread
from foveate.studies.verdict import ArmResult, Comparison, Difference, StartContrast, is_control, signed
from foveate.studies.wording import headline, sentences, words

__all__ = ["ArmResult", "Comparison", "Difference", "StartContrast", "compare", "headline", "sentences"]

Array = NDArray[np.float64]

_POWER, _MOST_SEEDS = 0.8, 1000
_NO_SPREAD = "every seed gives the same difference, so chance cannot be measured"
_LEAST_SPREAD = "every seed gives the same difference, so the spread is assumed to be what one test image is worth"


@dataclass(frozen=True)
class _Terms:
    """How arms are judged: the margin in points, the level of all intervals together, and the design with its looks.

    `resolution` is the smallest spread that a score can show.
    """

    margin: float
    level: float
    design: Design
    resolution: float


def compare(
    scores: Mapping[str, Mapping[int, float]],
    baseline: str,
    *,
    margin: float = 1.0,
    level: float = 0.95,
    design: Design | None = None,
    resolution: float = 0.0,
) -> Comparison:
    """Compare every arm with the baseline: scores[arm][seed] is an accuracy in percent; a failed trial is absent.

    An arm whose whole interval lies within `margin` points is practically equal to the baseline: smaller differences do
    not matter.

    Arms and seeds form an additive model with one pooled residual variance; Dunnett's many-to-one comparison gives
    simultaneous intervals and adjusted p values. Where the arms' variances differ, each arm is compared by its own
    paired differences instead: Bonferroni intervals, Holm-adjusted p. Either way the verdict follows the interval.
    Missing trials are handled by least squares. `design` says how often the study has been looked at, so that intervals
    and p values allow for it; None for a fixed number of seeds. `resolution` is what one test image is worth, in
    points: no spread between seeds is assumed to be smaller, as the score cannot show it. With a `control` arm the
    others are compared with it too, and each identity start with the paper's start at the same sites.

    Raises UsageError for an unknown baseline, a level outside (0, 1), a margin that is not positive, a resolution below
    0, or a score that is not finite.
    """
    _check(scores, baseline, margin, level, resolution)
    seeds = tuple(sorted({seed for arm in scores.values() for seed in arm}))
    slugs = [baseline, *(slug for slug in scores if slug != baseline)]
    table = np.full((len(slugs), len(seeds)), np.nan)
    for row, slug in enumerate(slugs):
        table[row, [seeds.index(seed) for seed in scores[slug]]] = list(scores[slug].values())
    terms = _Terms(margin, level, design or Design(len(seeds), len(seeds), len(seeds)), resolution)
    family = _judge(table, terms)
    half, one = _advise(family)
    return Comparison(
        baseline=baseline,
        level=level,
        margin=margin,
        seeds=seeds,
        design=terms.design,
        arms=tuple(_arm(slug, table, slugs.index(slug), family, terms) for slug in scores),
        method=family.method,
        why=family.why,
        critical=family.critical,
        df=family.df,
        residual_sd=family.residual_sd,
        variance_check=family.variance_check,
        seeds_for_half_point=half,
        seeds_for_one_point=one,
        versus_control=_versus_control(scores, baseline, terms),
        starts=_starts(slugs, table, terms),
    )


@dataclass
class _Family:
    """One family of comparisons with row 0 of the table; `need(n)` is the effect found with power 80 % at n seeds."""

    why: str
    planned: int = 1  # number of arms, whether or not they ran: looks and levels allow for all of them
    method: Literal["dunnett-blocked", "paired-holm"] = "dunnett-blocked"
    differences: dict[int, Difference] = field(default_factory=dict)
    estimates: dict[int, float] = field(default_factory=dict)
    critical: float | None = None
    df: int = 0
    residual_sd: float | None = None
    variance_check: dict[str, Any] | None = None
    need: Callable[[int], float] | None = None


def _judge(table: Array, terms: _Terms) -> _Family:
    ran = np.isfinite(table)
    rows = np.flatnonzero(joined(ran))
    if not len(rows):
        return _Family("the baseline has no finished trial")
    if len(rows) == 1:
        return _Family("no other arm has a finished trial on a seed of the baseline")
    cells = ran[np.ix_(rows, np.flatnonzero(ran[rows].any(0)))]
    model, values = fit_two_way(cells), table[rows][ran[rows]]
    family = _Family("at least 2 seeds are needed to tell an effect from chance", len(table) - 1, df=model.df)
    family.estimates = {int(row): float(estimate) for row, estimate in zip(rows[1:], model.solve @ values, strict=True)}
    if not model.df:
        return family
    spread = float(np.sqrt((model.residuals(values) ** 2).sum() / model.df))
    if _is_flat(spread, values):
        family.why, family.residual_sd = _LEAST_SPREAD if terms.resolution else _NO_SPREAD, terms.resolution
        return _blocked(family, model, terms) if terms.resolution else family
    family.residual_sd = max(spread, terms.resolution)
    equal = _equal_variances(family, model, values, terms.design.check_level)
    return _blocked(family, model, terms) if equal else _paired(family, table, terms)


def _equal_variances(family: _Family, model: TwoWayModel, values: Array, check_level: float) -> bool:
    """Return whether the arms have equal variances; record the check and the reason for the method in the family."""
    if len(family.estimates) == 1:
        family.why = "with two arms it is the paired t test"
        return True
    statistic, p = map(float, unequal_spread(model, values))
    family.variance_check = {
        "name": "John's test of equal residual variances, null simulated",
        "statistic": statistic,
        "p": p,
    }
    equal = p > check_level
    noisiest = model.shares(values).max()
    family.why = (
        f"the arms' variances do not differ (p = {p:.2g}), so one pooled variance is used for all"
        if equal
        else f"the arms' variances differ (p = {p:.2g}, the noisiest arm has {100 * noisiest:.0f} % of the variance), "
        "so each arm is judged by its own"
    )
    return equal


def _blocked(family: _Family, model: TwoWayModel, terms: _Terms) -> _Family:
    sd, df, arms = family.residual_sd or 0.0, model.df, len(family.estimates)
    unit = np.sqrt(np.diag(model.covariance))
    loadings = factor_loadings(model.covariance / np.outer(unit, unit)).tolist()
    estimates, error = np.array(list(family.estimates.values())), sd * unit
    family.critical = critical_value(loadings, df, terms.design.level(family.planned, terms.level))
    p = terms.design.overall(adjusted_p(estimates / error, loadings, df), family.planned)
    family.differences = _differences(family.estimates, estimates, family.critical * error, p)

    def need(seeds: int) -> float:
        freedom = arms * (seeds - 1)
        bound = critical_value([np.sqrt(0.5)] * arms, freedom, terms.level)
        return float((bound + special.stdtrit(freedom, _POWER)) * sd * np.sqrt(2 / seeds))

    family.need = need
    return family


def _paired(family: _Family, table: Array, terms: _Terms) -> _Family:
    """Judge each arm by its own differences from the baseline.

    An arm with fewer than 2 shared seeds, or without spread, has no interval.
    """
    family.method = "paired-holm"
    gaps = {row: gap for row in family.estimates if _has_spread(gap := _gap(table, row, 0), terms)}
    family.estimates |= {row: float(gap.mean()) for row, gap in gaps.items()}
    if not gaps:
        family.why = _NO_SPREAD
        return family
    family.differences = _by_pairs(gaps, terms, family.planned)
    family.df = min(len(gap) for gap in gaps.values()) - 1
    family.critical = _bonferroni(family.df, len(gaps), terms.design.level(family.planned, terms.level))
    sd = float(np.median([_spread(gap, terms) for gap in gaps.values()]))

    def need(seeds: int) -> float:
        return (
            (_bonferroni(seeds - 1, len(gaps), terms.level) + float(special.stdtrit(seeds - 1, _POWER)))
            * sd
            / np.sqrt(seeds)
        )

    family.need = need
    return family


def _by_pairs(gaps: Mapping[int, Array], terms: _Terms, planned: int) -> dict[int, Difference]:
    """Return paired t comparisons of several gaps: simultaneous intervals by Bonferroni, and Holm's p."""
    sizes = np.array([len(gap) for gap in gaps.values()])
    means = np.array([gap.mean() for gap in gaps.values()])
    error = np.array([_spread(gap, terms) for gap in gaps.values()]) / np.sqrt(sizes)
    level = terms.design.level(planned, terms.level)
    bound = np.array([_bonferroni(int(size) - 1, len(gaps), level) for size in sizes])
    p = terms.design.overall(holm(2 * special.stdtr(sizes - 1, -np.abs(means / error))), planned)
    return _differences(gaps, means, bound * error, p)


def _differences(
    rows: Sequence[int] | Mapping[int, Any], estimates: Array, reach: Array, p: Array
) -> dict[int, Difference]:
    triples = zip(rows, estimates.tolist(), reach.tolist(), p.tolist(), strict=True)
    return {row: Difference(estimate, estimate - half, estimate + half, one) for row, estimate, half, one in triples}


def _advise(family: _Family) -> tuple[int | None, int | None]:
    """Return the seeds needed to find 0.5 and 1 point with power 80 %."""
    return (_seeds_for(0.5, family.need), _seeds_for(1.0, family.need)) if family.need else (None, None)


def _seeds_for(effect: float, need: Callable[[int], float]) -> int | None:
    seeds = 2 + bisect_left(range(2, _MOST_SEEDS + 1), True, key=lambda n: need(n) <= effect)
    return seeds if seeds <= _MOST_SEEDS else None


def _arm(slug: str, table: Array, row: int, family: _Family, terms: _Terms) -> ArmResult:
    done = table[row][np.isfinite(table[row])]
    mean = float(done.mean()) if len(done) else None
    sd = float(done.std(ddof=1)) if len(done) > 1 else None
    difference = family.differences.get(row)
    if not len(done):
        verdict, text = "not run", "not run: no trial finished"
    elif row == 0:
        verdict, text = "baseline", "baseline"
    elif difference:
        verdict, text = difference.verdict(terms.margin), words(difference, terms.margin, terms.level)
    else:
        verdict, text = "undecided", f"undecided: {_reason(table, row, family)}"
    return ArmResult(slug, len(done), mean, sd, difference, verdict, text)


def _reason(table: Array, row: int, family: _Family) -> str:
    """Return why this arm has no interval."""
    if row not in family.estimates:
        unmatched = "no finished trial can be compared with the baseline's"
        return family.why if np.isnan(table[0]).all() else unmatched
    gap = _gap(table, row, 0)
    own = "at least 2 seeds shared with the baseline are needed" if len(gap) < 2 else _NO_SPREAD
    why = own if family.differences or family.method == "paired-holm" else family.why
    return f"{signed(family.estimates[row], 1)} points; {why}"


def _versus_control(scores: Mapping[str, Mapping[int, float]], baseline: str, terms: _Terms) -> tuple[Comparison, ...]:
    """Compare the arms of each site with the control at that site, as one family for each site."""
    if is_control(baseline):
        return ()
    controls = [slug for slug, arm in scores.items() if is_control(slug) and arm]
    families = {
        control: {s: arm for s, arm in scores.items() if s != baseline and _site(s) == _site(control)}
        for control in controls
    }
    return tuple(compare(rivals, control, **vars(terms)) for control, rivals in families.items() if len(rivals) > 1)


def _site(slug: str) -> str:
    return slug.partition("__")[2]


def _starts(slugs: Sequence[str], table: Array, terms: _Terms) -> tuple[StartContrast, ...]:
    """Compare identity with paper starts in pairs: the paper's start often varies more, so no variance is pooled."""
    pairs = {row: slug.replace("-identity__", "-paper__") for row, slug in enumerate(slugs) if "-identity__" in slug}
    gaps = {row: _gap(table, row, slugs.index(paper)) for row, paper in pairs.items() if paper in slugs}
    gaps = {row: gap for row, gap in gaps.items() if _has_spread(gap, terms)}
    differences = _by_pairs(gaps, terms, len(gaps)) if gaps else {}
    return tuple(
        StartContrast(slugs[row], pairs[row], difference, difference.verdict(terms.margin))
        for row, difference in differences.items()
    )


def _gap(table: Array, row: int, other: int) -> Array:
    gap = table[row] - table[other]
    return gap[np.isfinite(gap)]


def _has_spread(gap: Array, terms: _Terms) -> bool:
    return len(gap) > 1 and (terms.resolution > 0 or not _is_flat(float(gap.std(ddof=1)), gap))


def _spread(gap: Array, terms: _Terms) -> float:
    return max(float(gap.std(ddof=1)), terms.resolution)


def _is_flat(sd: float, values: Array) -> bool:
    """Return whether a spread is only rounding error."""
    return sd <= 1e-9 * max(1.0, float(np.abs(values).max()))


def _bonferroni(df: int, comparisons: int, level: float) -> float:
    return float(special.stdtrit(df, 1 - (1 - level) / (2 * comparisons)))


def _check(
    scores: Mapping[str, Mapping[int, float]], baseline: str, margin: float, level: float, resolution: float
) -> None:
    if baseline not in scores:
        raise UsageError(expected="a baseline among the arms", received=repr(baseline), do=nearest(baseline, scores))
    if not 0 < level < 1:
        raise UsageError(
            expected="a confidence level between 0 and 1", received=f"{level}", do="use 0.95 unless you have a reason"
        )
    if not 0 <= resolution < np.inf:
        raise UsageError(
            expected="a resolution of 0 points or more",
            received=f"{resolution}",
            do="give 100 divided by the number of test images",
        )
    if not 0 < margin < np.inf:
        raise UsageError(
            expected="a margin above 0, in points", received=f"{margin}", do="use 1 unless you have a reason"
        )
    for slug, arm in scores.items():
        for seed, score in arm.items():
            if not np.isfinite(score):
                raise UsageError(
                    expected="finite accuracies, in percent",
                    received=f"{score} for {slug}, seed {seed}",
                    do="leave a failed or diverged trial out of the scores",
                )
