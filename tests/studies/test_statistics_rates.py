"""RELIABILITY rows 21 and 22: how often the whole procedure is right on simulated studies."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from foveate.studies.statistics import Comparison, compare
from foveate.studies.two_way import fit_two_way, unequal_spread

ARMS, STUDIES = 7, 2000


def studies(
    seeds: int, count: int, *, sd: Sequence[float] = (0.8,) * ARMS, effects: Sequence[float] = (0.0,) * ARMS
) -> Iterator[Comparison]:
    rng = np.random.default_rng(seeds)
    for _ in range(count):
        table = (
            80
            + np.array(effects)[:, None]
            + rng.normal(0, 2, seeds)
            + rng.normal(size=(ARMS, seeds)) * np.array(sd)[:, None]
        )
        yield compare({f"arm{row}": dict(enumerate(scores)) for row, scores in enumerate(table.tolist())}, "arm0")


def share(wrong: list[bool]) -> float:
    return sum(wrong) / len(wrong)


def false_alarms(study: Comparison) -> bool:
    return any(arm.verdict in ("helps", "hurts") for arm in study.arms)


# an interval moves with its arm's effect (test_an_effect_shifts_only_its_own_interval), so this is the coverage of any
# effects
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.reliability(21)
def test_null_studies_rarely_give_false_alarms_and_intervals_cover(seeds: int, tried: Any):
    null = list(studies(seeds, STUDIES))
    assert share([false_alarms(study) for study in null]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / STUDIES)
    covered = [
        all(arm.difference.low <= 0 <= arm.difference.high for arm in study.arms if arm.difference) for study in null
    ]
    assert abs(share(covered) - 0.95) <= 0.015
    assert 0.02 < share([study.method == "paired-holm" for study in null]) < 0.08
    tried(STUDIES)


@pytest.mark.reliability(22)
def test_a_planted_arm_is_found_and_no_other(tried: Any):
    planted = list(studies(5, 200, effects=(0, 0, 0, 3, 0, 0, 0)))
    assert share([study["arm3"].verdict == "helps" for study in planted]) >= 0.95
    assert share([study["arm5"].verdict not in ("helps", "hurts") for study in planted]) >= 0.95
    tried(len(planted))


def test_one_noisy_arm_gives_no_more_false_alarms_than_allowed():
    noisy = list(studies(10, 400, sd=(0.8,) * 6 + (5.0,)))
    assert share([study.method == "paired-holm" for study in noisy]) > 0.95
    assert share([false_alarms(study) for study in noisy]) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_variance_check_has_its_size(seeds: int):
    model = fit_two_way(np.ones((ARMS, seeds), dtype=bool))
    noise = np.random.default_rng(seeds).normal(size=(STUDIES, ARMS * seeds))
    rejected = (unequal_spread(model, noise)[1] <= 0.05).tolist()
    assert share(rejected) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / STUDIES))


def test_with_missing_trials_every_arm_has_the_same_share_of_the_variance():
    ran = np.ones((ARMS, 5), dtype=bool)
    ran[1, 2:], ran[4, 0] = False, False
    noise = np.random.default_rng(0).normal(size=(20_000, int(ran.sum())))
    assert fit_two_way(ran).shares(noise).mean(0) == pytest.approx(
        np.full(ARMS, 1 / ARMS), rel=0.2
    )  # a noisier share is a little lower


def test_the_recommended_seeds_find_the_effect_four_times_in_five():
    advised = np.median([study.seeds_for_one_point or 0 for study in studies(10, 100)])
    found = [study["arm3"].verdict == "helps" for study in studies(int(advised), 300, effects=(0, 0, 0, 1, 0, 0, 0))]
    assert share(found) == pytest.approx(0.8, abs=0.08)
