import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import DataFrame
from scipy import stats
from statsmodels.stats.multitest import multipletests

from foveate.errors import UsageError
from foveate.studies.statistics import Comparison, Difference, compare

Scores = dict[str, dict[int, float]]

ARMS = ("none__host", "control__residual", "se-identity__residual", "cbam-identity__residual", "cbam-paper__residual")
STATISTICS = [
    *("method", "why", "critical", "df", "residual_sd", "variance_check"),
    *("seeds_for_half_point", "seeds_for_one_point"),
]


def simulate(
    seeds: int = 5,
    *,
    effects: Mapping[str, float] | None = None,
    sd: Mapping[str, float] | None = None,
    stream: int = 0,
) -> Scores:
    rng = np.random.default_rng([stream, seeds])
    difficulty = rng.normal(0, 2, seeds)
    noise = {arm: rng.normal(0, (sd or {}).get(arm, 0.8), seeds) for arm in ARMS}
    return {arm: dict(enumerate((85 + (effects or {}).get(arm, 0) + difficulty + noise[arm]).tolist())) for arm in ARMS}


def without(scores: Scores, *cells: tuple[str, int]) -> Scores:
    return {
        arm: {seed: score for seed, score in row.items() if (arm, seed) not in cells} for arm, row in scores.items()
    }


def differences(study: Comparison) -> dict[str, tuple[float, float, float, float]]:
    return {
        arm.slug: (arm.difference.estimate, arm.difference.low, arm.difference.high, arm.difference.p)
        for arm in study.arms
        if arm.difference
    }


MISSING = (("se-identity__residual", 0), ("cbam-paper__residual", 3), ("none__host", 4))


@pytest.mark.parametrize("gone", [(), MISSING[:1], MISSING], ids=["complete", "one missing", "three missing"])
def test_estimates_are_those_of_ordinary_least_squares(gone: tuple[tuple[str, int], ...]):
    scores = without(simulate(), *gone)
    rows = [(arm.replace("none", "a"), seed, score) for arm, row in scores.items() for seed, score in row.items()]
    oracle = smf.ols("score ~ C(arm) + C(seed)", DataFrame(rows, columns=["arm", "seed", "score"])).fit()
    study = compare(scores, "none__host")
    assert study.method == "dunnett-blocked"
    assert study.df == oracle.df_resid
    assert study.residual_sd == pytest.approx(np.sqrt(oracle.scale))
    for arm in study.arms[1:]:
        term = f"C(arm)[T.{arm.slug}]"
        assert arm.difference
        assert study.critical
        assert arm.difference.estimate == pytest.approx(oracle.params[term])
        assert arm.difference.high - arm.difference.estimate == pytest.approx(study.critical * oracle.bse[term])
        assert arm.difference.p >= oracle.pvalues[term]


def test_unequal_spread_falls_back_to_paired_t_with_holm():
    scores = simulate(8, effects={"se-identity__residual": 3}, sd={"cbam-paper__residual": 12})
    study = compare(scores, "none__host")
    assert study.method == "paired-holm"
    assert "variances differ" in study.why
    assert study.variance_check
    assert study.variance_check["p"] <= 0.05
    base = np.array(list(scores["none__host"].values()))
    tests = {arm: stats.ttest_rel(list(scores[arm].values()), base) for arm in ARMS[1:]}
    adjusted: Any = multipletests([test.pvalue for test in tests.values()], method="holm")[1]
    for (slug, test), p in zip(tests.items(), adjusted, strict=True):
        difference = study[slug].difference
        assert difference
        assert difference.p == pytest.approx(p)
        interval = test.confidence_interval(1 - 0.05 / 4)
        assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_two_arms_are_the_paired_t_test():
    scores = {arm: row for arm, row in simulate().items() if arm in ("none__host", "se-identity__residual")}
    oracle = stats.ttest_rel(list(scores["se-identity__residual"].values()), list(scores["none__host"].values()))
    study = compare(scores, "none__host")
    assert study.variance_check is None
    assert differences(study)["se-identity__residual"][3] == pytest.approx(oracle.pvalue)


@settings(max_examples=20, deadline=None)
@given(shift=st.lists(st.floats(-30, 30), min_size=5, max_size=5), stream=st.integers(0, 50))
def test_seed_effects_and_the_order_of_arms_change_nothing(shift: list[float], stream: int):
    scores = simulate(stream=stream)
    moved = {arm: {seed: score + shift[seed] for seed, score in scores[arm].items()} for arm in reversed(ARMS)}
    before, after = differences(compare(scores, "none__host")), differences(compare(moved, "none__host"))
    for slug, numbers in before.items():
        assert after[slug] == pytest.approx(numbers, abs=1e-6)


@pytest.mark.parametrize("noise", [0.8, 12.0], ids=["dunnett", "paired"])
def test_an_effect_shifts_only_its_own_interval(noise: float):
    sd = {"cbam-paper__residual": noise}
    plain = differences(compare(simulate(8, sd=sd), "none__host"))
    moved = differences(compare(simulate(8, sd=sd, effects={"se-identity__residual": 7.0}), "none__host"))
    for slug, numbers in plain.items():
        by = 7.0 if slug == "se-identity__residual" else 0.0
        assert moved[slug][:3] == pytest.approx(tuple(number + by for number in numbers[:3]))


def test_negated_scores_give_the_opposite_verdicts():
    scores = simulate(effects={"se-identity__residual": 4, "cbam-paper__residual": -5})
    turned = {arm: {seed: 100 - score for seed, score in row.items()} for arm, row in scores.items()}
    study, opposite = compare(scores, "none__host"), compare(turned, "none__host")
    assert study["se-identity__residual"].verdict == opposite["cbam-paper__residual"].verdict == "helps"
    assert study["cbam-paper__residual"].verdict == opposite["se-identity__residual"].verdict == "hurts"


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (simulate(1), "at least 2 seeds"),
        ({arm: dict.fromkeys(range(3), 90.0) for arm in ARMS}, "same difference"),
        ({arm: {seed: 80.0 + seed + 2 * i for seed in range(4)} for i, arm in enumerate(ARMS)}, "same difference"),
        ({"none__host": {0: 90.0, 1: 91.0}}, "no other arm"),
        ({"none__host": {}, "se-identity__residual": {0: 90.0, 1: 91.0}}, "baseline has no finished trial"),
        ({"none__host": {0: 90.0}, "se-identity__residual": {1: 91.0}}, "no other arm"),
        ({"none__host": {}}, "baseline has no finished trial"),
        ({"none__host": {0: 90.0, 1: 90.5}, "se-identity__residual": {1: 91.0}}, "at least 2 seeds"),
    ],
    ids=[
        "1 seed",
        "all equal",
        "exactly additive",
        "one arm",
        "no baseline",
        "no shared seed",
        "nothing",
        "one shared cell",
    ],
)
def test_where_chance_cannot_be_measured_nothing_is_decided(scores: Scores, why: str):
    study = compare(scores, "none__host")
    assert why in study.why
    assert {arm.verdict for arm in study.arms} <= {"baseline", "undecided", "not run"}
    assert not any(arm.difference for arm in study.arms)
    assert study.critical is study.seeds_for_one_point is None
    json.dumps(study.to_dict(), allow_nan=False)


def test_two_seeds_can_be_judged_with_a_wide_interval():
    two, five = compare(simulate(2), "none__host"), compare(simulate(5), "none__host")
    assert all((two[slug].could_have_seen or 0) > (five[slug].could_have_seen or np.inf) for slug in ARMS[1:])
    assert all(arm.difference for arm in two.arms[1:])


def test_an_arm_without_trials_is_not_run_and_does_not_change_the_others():
    scores = simulate()
    empty = {**scores, "eca-identity__residual": {}}
    study = compare(empty, "none__host")
    assert study["eca-identity__residual"].verdict == "not run"
    assert study["eca-identity__residual"].mean is None
    assert differences(study) == differences(compare(scores, "none__host"))


def test_an_arm_that_shares_no_seed_with_the_baseline_gets_no_difference():
    scores = {**simulate(), "eca-identity__residual": {17: 99.0, 18: 98.0}}
    arm = compare(scores, "none__host")["eca-identity__residual"]
    assert (arm.verdict, arm.difference, arm.n_done) == ("undecided", None, 2)
    assert "baseline" in arm.words


def test_in_the_fallback_an_arm_with_one_shared_seed_has_no_interval():
    scores = simulate(8, sd={"cbam-paper__residual": 12})
    scores["se-identity__residual"] = {3: 91.0}
    study = compare(scores, "none__host")
    assert study.method == "paired-holm"
    assert study["se-identity__residual"].difference is None
    assert "2 seeds shared" in study["se-identity__residual"].words
    assert study["control__residual"].difference


def test_the_dictionary_has_the_schema_and_is_plain_json():
    study = compare(simulate(effects={"se-identity__residual": 3}), "none__host").to_dict()
    assert study["margin"] == 1.0
    assert [study["arms"][slug]["could_have_seen"] is None for slug in ARMS[:3]] == [True, False, False]
    assert json.loads(json.dumps(study, allow_nan=False)) == study
    assert list(study["statistics"]) == STATISTICS
    assert set(study["statistics"]["variance_check"]) == {"name", "statistic", "p"}
    assert list(study["arms"]) == list(ARMS)
    assert set(study["arms"]["se-identity__residual"]["difference"]) == {"estimate", "low", "high", "p"}
    assert study["arms"]["none__host"]["difference"] is None
    assert [study["arms"][slug]["verdict"] for slug in ARMS[:3]] == ["baseline", "undecided", "helps"]


def test_each_arm_could_have_seen_its_half_width_and_more_power_takes_more_seeds():
    study = compare(simulate(), "none__host")
    for slug in ARMS[1:]:
        assert study[slug].could_have_seen == pytest.approx(
            (study.critical or 0) * (study.residual_sd or 0) * np.sqrt(2 / 5)
        )
    assert 2 <= (study.seeds_for_one_point or 0) < (study.seeds_for_half_point or 0)
    hopeless = compare(simulate(3, sd=dict.fromkeys(ARMS, 60.0)), "none__host")
    assert hopeless.seeds_for_half_point is None


def test_a_narrower_level_narrows_the_intervals():
    scores = simulate()
    wide, narrow = compare(scores, "none__host", level=0.99), compare(scores, "none__host", level=0.8)
    assert all((wide[slug].could_have_seen or 0) > (narrow[slug].could_have_seen or np.inf) for slug in ARMS[1:])


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((0.1, 2.0), "helps"),
        ((-2.0, -0.1), "hurts"),
        ((-0.9, 0.9), "practically equal"),
        ((0.1, 0.9), "practically equal"),  # the margin is checked first
        ((-0.9, -0.1), "practically equal"),
        ((-0.2, 1.0), "undecided"),  # the end of the interval touches the margin
        ((0.0, 2.0), "undecided"),
        ((-3.0, 3.0), "undecided"),
    ],
)
def test_the_whole_interval_decides_among_four_verdicts(interval: tuple[float, float], verdict: str):
    assert Difference(sum(interval) / 2, *interval, 0.5).verdict(1.0) == verdict


def test_a_wide_margin_makes_arms_equal_that_a_narrow_one_leaves_undecided():
    scores = simulate(20)
    wide, narrow = compare(scores, "none__host", margin=2.0), compare(scores, "none__host", margin=0.05)
    assert {wide[slug].verdict for slug in ARMS[1:]} == {"practically equal"}
    assert "practically equal" not in {narrow[slug].verdict for slug in ARMS[1:]}
    assert differences(wide) == differences(narrow)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"baseline": "none_host"}, "none__host"),
        ({"level": 1.0}, "between 0 and 1"),
        ({"level": 95}, "between 0 and 1"),
        ({"margin": 0.0}, "above 0"),
        ({"margin": float("nan")}, "above 0"),
        ({"scores": {"none__host": {0: float("nan")}}}, "seed 0"),
        ({"scores": {"none__host": {0: 1.0}, "se__residual": {4: float("inf")}}}, "se__residual, seed 4"),
    ],
)
def test_wrong_arguments_are_refused(change: dict, part: str):
    call = {"scores": simulate(), "baseline": "none__host", "level": 0.95, "margin": 1.0} | change
    with pytest.raises(UsageError, match=part):
        compare(call["scores"], call["baseline"], level=call["level"], margin=call["margin"])


def test_seeds_with_equal_scores_are_judged_by_what_one_picture_is_worth() -> None:
    """Five seeds at 25 % against five at 100 % are decided, as the scores can show a spread of 0.1 points."""
    scores = {
        "none": dict.fromkeys(range(5), 25.0),
        "same": dict.fromkeys(range(5), 25.0),
        "se": dict.fromkeys(range(5), 100.0),
    }
    assert {arm.verdict for arm in compare(scores, "none").arms} == {"baseline", "undecided"}
    found = compare(scores, "none", resolution=0.1)
    assert (found["se"].verdict, found["same"].verdict) == ("helps", "practically equal")
    assert found["se"].difference is not None
    reach = found.critical * 0.1 * np.sqrt(2 / 5)  # type: ignore[operator]
    assert found["se"].difference.half_width == pytest.approx(reach)
    six = {"none": dict.fromkeys(range(5), 50.0), "se": dict.fromkeys(range(5), 66.7)}
    assert compare(six, "none", resolution=100 / 6)["se"].verdict == "undecided", "one of six images is no evidence"


@pytest.mark.parametrize("spread", [0.02, 0.5])
def test_no_spread_is_assumed_to_be_smaller_than_the_resolution(spread: float) -> None:
    rng = np.random.default_rng(0)
    scores = {arm: dict(enumerate((80 + spread * rng.normal(size=6)).tolist())) for arm in ("none", "se", "eca")}
    plain, coarse = compare(scores, "none"), compare(scores, "none", resolution=0.1)
    assert plain.residual_sd is not None
    assert coarse.residual_sd == max(plain.residual_sd, 0.1)


def test_paired_differences_without_spread_use_the_resolution_too() -> None:
    rng = np.random.default_rng(1)
    noisy = dict(enumerate((70 + 8 * rng.normal(size=8)).tolist()))
    scores = {
        "none": dict.fromkeys(range(8), 25.0),
        "se": dict.fromkeys(range(8), 90.0),
        "eca": noisy,
        "cbam": dict.fromkeys(range(8), 25.0),
    }
    found = compare(scores, "none", resolution=0.1)
    assert found.method == "paired-holm"
    assert (found["se"].verdict, found["cbam"].verdict) == ("helps", "practically equal")
