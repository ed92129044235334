"""The warnings of a study: each is given where it applies, and nowhere else."""

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
# Training loss, validation loss and validation score of each epoch.
FLAT: Epochs = [(1.0, 0.9, 0.80), (0.6, 0.5, 0.90), (0.5, 0.5, 0.90)]


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


def warned(found: Any, margin: float = 1.0, added: dict[str, int] | None = None) -> str:
    comparison = judge(found, margin, Design(*[max(map(len, found.values()))] * 3))
    curves = {slug: histories(one) for slug, one in found.items()}
    equal_loss = {
        slug: at_equal_loss(one, curves["none__host"]) for slug, one in curves.items() if slug != "none__host"
    }
    return " ".join(warnings(comparison, found, LABELS, added or {}, equal_loss))


def test_a_sound_study_has_no_warnings() -> None:
    assert warned(trials()) == ""
    assert warned(trials({SE: 5})) == ""


def test_few_seeds() -> None:
    assert "Fewer than 2 seeds" in warned(trials(seeds=1))
    assert "3 seeds hardly show whether one arm varies more" in warned(trials(seeds=3))
    assert "hardly show" not in warned(trials(seeds=5))


def test_one_test_picture_is_worth_more_than_the_margin_or_than_could_be_seen() -> None:
    assert "One of the 6 test images is worth 17 points, more than the margin of 1" in warned(trials(count=6))
    narrow = trials(count=150, noise=0.05)
    assert "One of the 150 test images is worth 0.67 points, and the study could have seen ±" in warned(narrow)
    assert "test images" not in warned(trials(count=1000))
    assert "more than the margin of 0.04" in warned(trials(), margin=0.04)


def test_all_seeds_gave_the_same_score() -> None:
    same = trials(noise=0)
    assert "the control, SE, ECA scored exactly as the baseline with every seed" in warned(same)
    assert "Every seed of the plain model, the control, SE, ECA gave the same score" in warned(same)
    one = trials()
    for seed, trial in one[SE].items():
        trial["test_score"] = one["none__host"][seed]["test_score"]
    assert warned(one).startswith("SE scored exactly as the baseline")


def test_a_baseline_that_no_arm_can_beat_by_the_margin() -> None:
    assert "the plain model already scores 99.6" in warned(trials(base=99.6, noise=0.1))


def test_trials_that_did_not_finish() -> None:
    found = trials()
    found[ECA][2]["status"] = "diverged"
    assert "1 of 6 trials of ECA diverged or failed; its score is the mean of the others" in warned(found)


def test_a_control_that_gains_as_much() -> None:
    assert "the control scores at least as high as SE: parameters alone may explain the gain" in warned(
        trials({SE: 5, "control__residual": 7})
    )
    assert "at least as high" not in warned(trials({SE: 5, "control__residual": 2}))


def test_scores_that_still_rise() -> None:
    rising, slow = (
        [(1.0, 1.0, 0.5), (0.8, 0.8, 0.6), (0.6, 0.6, 0.65)],
        [(1.0, 1.0, 0.5), (0.8, 0.8, 0.6), (0.6, 0.6, 0.601)],
    )
    assert "in 24 of 24 trials, by 5.0 points on average" in warned(trials(epochs=rising))
    assert "still rises" not in warned(trials(epochs=slow))  # by a tenth of the margin
    assert "still rises" in warned(trials(epochs=slow), margin=0.2)
    assert "still rises" not in warned(
        trials(epochs=[(1.0, 1.0, 0.5), (0.8, 0.6, 0.6), (0.6, 0.7, 0.65)])
    )  # the loss does not fall
    assert "One epoch does not show" in warned(trials(epochs=rising[:1]))


FAST: Epochs = [(1.2, 1, 0.5), (0.8, 0.8, 0.70), (0.4, 0.4, 0.90)]
SLOW: Epochs = [(1.4, 1, 0.4), (1.0, 1, 0.55), (0.8, 0.8, 0.70)]


def test_fast_learning_differs_from_a_better_final_score() -> None:
    slower = warned(trials({SE: -20}, epochs=FAST, of_se=SLOW))
    assert "Most of the difference goes with a lower training loss: SE (−20" in slower
    assert "points in the end, +0.0 at equal loss" in slower
    assert "at a training loss of 0.8: SE learns more slowly, or cannot fit these data" in slower
    faster = warned(trials({SE: 20}, epochs=SLOW, of_se=FAST))
    assert "at a training loss of 0.8: the plain model learns more slowly, or cannot fit these data" in faster


def test_an_arm_that_is_worse_at_equal_loss_or_overfits_is_not_just_slow() -> None:
    assert "lower training loss" not in warned(
        trials({SE: -20}, epochs=FAST, of_se=[(1.4, 1, 0.4), (1.0, 1, 0.45), (0.8, 0.8, 0.50)])
    )
    assert "lower training loss" not in warned(
        trials({SE: -20}, epochs=FAST, of_se=[(1.4, 1, 0.4), (0.5, 1, 0.55), (0.1, 0.8, 0.70)])
    )


def test_an_arm_that_never_reached_the_others_first_loss_is_called_slow() -> None:
    late = warned(trials({SE: -20}, epochs=FAST, of_se=[(2.4, 1, 0.2), (2.2, 1, 0.25), (2.0, 0.8, 0.3)]))
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
