"""The warnings of a study: each is given where it is due, and not where it is not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from foveate.studies.caveats import warnings
from foveate.studies.design import Design
from foveate.studies.learning import at_equal_loss, histories, last_rise
from foveate.studies.results import judge

SE, ECA = "se-identity__residual", "eca-identity__residual"
LABELS = {
    "none__host": "the plain model",
    "control__residual": "the control",
    SE: "SE",
    ECA: "ECA",
}
Epochs = Sequence[tuple[float, float, float]]
FLAT: Epochs = [
    (1.0, 0.9, 0.80),
    (0.6, 0.5, 0.90),
    (0.5, 0.5, 0.90),
]  # training loss, validation loss, validation score


def rows(epochs: Epochs) -> list[dict[str, Any]]:
    names = ("train_loss", "val_loss", "val_score")
    return [{"epoch": k, **dict(zip(names, values, strict=True))} for k, values in enumerate(epochs, 1)]


def trials(
    gains: Mapping[str, float] | None = None,
    *,
    seeds: int = 6,
    count: int = 2000,
    noise: float = 0.4,
    base: float = 85,
    epochs: Epochs = FLAT,
    of_se: Epochs | None = None,
) -> dict[str, dict[int, dict[str, Any]]]:
    rng = np.random.default_rng(1)
    return {
        slug: {
            seed: {
                "status": "done",
                "test_score": (base + (gains or {}).get(slug, 0) + rng.normal(0, noise)) / 100,
                "test": {"correct": 1, "count": count},
                "history": rows(of_se if of_se and slug == SE else epochs),
            }
            for seed in range(seeds)
        }
        for slug in LABELS
    }


def told(found: Any, margin: float = 1.0) -> str:
    comparison = judge(found, margin, Design(*[max(map(len, found.values()))] * 3))
    curves = {slug: histories(one) for slug, one in found.items()}
    equal_loss = {
        slug: at_equal_loss(one, curves["none__host"]) for slug, one in curves.items() if slug != "none__host"
    }
    return " ".join(warnings(comparison, found, LABELS, equal_loss))


def test_a_sound_study_has_no_warnings() -> None:
    assert told(trials()) == ""
    assert told(trials({SE: 5})) == ""


def test_few_seeds() -> None:
    assert "Fewer than 2 seeds" in told(trials(seeds=1))
    assert "3 seeds hardly show whether one arm scatters more" in told(trials(seeds=3))
    assert "hardly show" not in told(trials(seeds=5))


def test_a_test_picture_that_is_worth_more_than_the_margin_or_than_what_could_be_seen() -> None:
    assert "One of the 6 test pictures is worth 17 points, more than the margin of 1" in told(trials(count=6))
    narrow = trials(count=150, noise=0.05)
    assert "One of the 150 test pictures is worth 0.67 points, and the study could have seen ±" in told(narrow)
    assert "test pictures" not in told(trials(count=1000))
    assert "more than the margin of 0.04" in told(trials(), margin=0.04)


def test_seeds_that_all_gave_the_same() -> None:
    same = trials(noise=0)
    assert "the control, SE, ECA scored exactly as the baseline with every seed" in told(same)
    assert "Every seed of the plain model, the control, SE, ECA gave the same score" in told(same)
    one = trials()
    for seed, trial in one[SE].items():
        trial["test_score"] = one["none__host"][seed]["test_score"]
    assert told(one).startswith("SE scored exactly as the baseline")


def test_a_baseline_without_room_above_it() -> None:
    assert "the plain model already scores 99.6" in told(trials(base=99.6, noise=0.1))


def test_trials_that_did_not_finish() -> None:
    found = trials()
    found[ECA][2]["status"] = "diverged"
    assert "1 of 6 trials of ECA diverged or failed; its score is the mean of the others" in told(found)


def test_a_control_that_gains_as_much() -> None:
    assert "the control scores at least as high as SE: parameters alone may explain the gain" in told(
        trials({SE: 5, "control__residual": 7})
    )
    assert "at least as high" not in told(trials({SE: 5, "control__residual": 2}))


def test_scores_that_still_rise() -> None:
    rising, slow = (
        [(1.0, 1.0, 0.5), (0.8, 0.8, 0.6), (0.6, 0.6, 0.65)],
        [(1.0, 1.0, 0.5), (0.8, 0.8, 0.6), (0.6, 0.6, 0.601)],
    )
    assert "in 24 of 24 trials, by 5.0 points on average" in told(trials(epochs=rising))
    assert "still rises" not in told(trials(epochs=slow))  # by a tenth of the margin
    assert "still rises" in told(trials(epochs=slow), margin=0.2)
    assert "still rises" not in told(
        trials(epochs=[(1.0, 1.0, 0.5), (0.8, 0.6, 0.6), (0.6, 0.7, 0.65)])
    )  # the loss does not fall
    assert "One epoch does not show" in told(trials(epochs=rising[:1]))


FAST: Epochs = [(1.2, 1, 0.5), (0.8, 0.8, 0.70), (0.4, 0.4, 0.90)]
SLOW: Epochs = [(1.4, 1, 0.4), (1.0, 1, 0.55), (0.8, 0.8, 0.70)]


def test_speed_of_learning_is_told_from_how_far_an_arm_gets() -> None:
    slower = told(trials({SE: -20}, epochs=FAST, of_se=SLOW))
    assert "Most of the difference of SE goes with a lower training loss: −20" in slower
    assert "but +0.0 points" in slower
    assert "where the plain model had the training loss at which SE ended (0.8)" in slower
    faster = told(trials({SE: 20}, epochs=SLOW, of_se=FAST))
    assert "where SE had the training loss at which the plain model ended" in faster
    assert "the plain model learns more slowly, or cannot fit these data" in faster


def test_an_arm_that_is_worse_at_equal_loss_or_overfits_is_not_just_slow() -> None:
    assert "lower training loss" not in told(
        trials({SE: -20}, epochs=FAST, of_se=[(1.4, 1, 0.4), (1.0, 1, 0.45), (0.8, 0.8, 0.50)])
    )
    assert "lower training loss" not in told(
        trials({SE: -20}, epochs=FAST, of_se=[(1.4, 1, 0.4), (0.5, 1, 0.55), (0.1, 0.8, 0.70)])
    )


def test_an_arm_that_never_came_as_far_as_the_other_in_one_epoch_is_said_to_be_slow() -> None:
    late = told(trials({SE: -20}, epochs=FAST, of_se=[(2.4, 1, 0.2), (2.2, 1, 0.25), (2.0, 0.8, 0.3)]))
    assert "and the seeds cannot be compared at equal loss: SE learns more slowly, or cannot fit these data" in late


def test_equal_loss_interpolates_and_has_the_interval_of_the_paired_t_test() -> None:
    arm = {seed: rows([(1.0, 1, 0.50), (0.7, 1, 0.60 + gain)]) for seed, gain in enumerate((0.00, 0.01, 0.02))}
    base = dict.fromkeys(range(4), rows([(0.9, 1, 0.50), (0.5, 1, 0.70)]))  # at a loss of 0.7: 0.60
    found = at_equal_loss(arm, base)
    assert found is not None
    assert (found["seeds"], found["train_loss"], found["estimate"]) == pytest.approx((3, 0.7, 1.0))
    assert found["high"] - found["estimate"] == pytest.approx(4.302653 / np.sqrt(3))
    assert at_equal_loss({0: arm[0]}, base) is None
    assert (
        at_equal_loss(dict.fromkeys(range(3), rows([(1.0, 1, 0.5), (0.95, 1, 0.6)])), base) is None
    )  # passed in the first epoch


def test_the_last_rise_needs_the_best_score_and_the_lowest_loss_at_the_end() -> None:
    up, down = rows([(1, 1.0, 0.5), (1, 0.9, 0.6)]), rows([(1, 1.0, 0.6), (1, 0.9, 0.5)])
    assert last_rise([up, up, down]) == (2, pytest.approx(10 / 3))
    assert last_rise([rows([(1, 1.0, 0.5)])]) == (0, 0.0)
