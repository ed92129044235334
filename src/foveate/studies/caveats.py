"""The `warnings` of results.json: sentences with the reasons to doubt a study's verdict."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from foveate.studies.control import AddedParameters, size
from foveate.studies.learning import EqualLoss, Trials, count_test_images, histories, last_loss, last_rise
from foveate.studies.verdict import Comparison, is_control, signed

_LARGE_SHARE = 0.5  # warn if one test image is worth more than this share of what the study could have seen
_SHORT_RISE = 0.25  # warn if the score still rises by more than this share of the margin in the last epoch
_SPEED_SHARE = 0.5  # warn if less than this share of the difference is left at equal training loss
_FEW_SEEDS = 4  # up to this number of seeds, the check of equal variances finds little

_LONGER = "A study with more --epochs shows which."


def warnings(
    comparison: Comparison,
    trials: Trials,
    labels: Mapping[str, str],
    added: AddedParameters,
    equal_loss: EqualLoss,
) -> list[str]:
    """Return the sentences; `labels` names each arm for people, `added` are the parameters that each arm adds."""
    return [
        *_few_seeds(comparison),
        *_coarse_test(comparison, trials),
        *_nothing_to_gain(comparison, labels),
        *_same_scores(comparison, trials, labels),
        *_unfinished(comparison, trials, labels),
        *_control_gains(comparison, labels, added),
        *_still_rising(comparison, trials),
        *_speed(comparison, trials, labels, equal_loss),
    ]


def _few_seeds(comparison: Comparison) -> Iterator[str]:
    seeds = len(comparison.seeds)
    if seeds < 2:
        yield "Fewer than 2 seeds cannot tell an effect from chance: run 3 or more, or --seeds 3..20."
    elif seeds <= _FEW_SEEDS and comparison.variance_check and comparison.method == "dunnett-blocked":
        yield (
            f"{seeds} seeds hardly show whether one arm varies more than the others; if one does, false alarms are "
            "more frequent than 5 % (docs/design/verdict.md says how much): run 5 or more."
        )


def _coarse_test(comparison: Comparison, trials: Trials) -> Iterator[str]:
    if not (images := count_test_images(trials)):
        return
    worth, seen = 100 / images, [arm.could_have_seen for arm in comparison.arms if arm.could_have_seen]
    one = f"One of the {images} test images is worth {worth:.2g} points"
    if worth > comparison.margin:
        yield f"{one}, more than the margin of {comparison.margin:g}: test on more."
    elif worth > _LARGE_SHARE * min(seen, default=100.0):
        yield f"{one}, and the study could have seen ±{min(seen):.2g}: test on more."


def _nothing_to_gain(comparison: Comparison, labels: Mapping[str, str]) -> Iterator[str]:
    mean = comparison[comparison.baseline].mean
    if mean is not None and 100 - mean < comparison.margin:
        room = f"no arm can gain more than {100 - mean:.2g}, less than the margin"
        yield f"{labels[comparison.baseline]} already scores {mean:.2f} %: {room}."


def _same_scores(comparison: Comparison, trials: Trials, labels: Mapping[str, str]) -> Iterator[str]:
    scores = {slug: _scores(found) for slug, found in trials.items()}
    base = scores[comparison.baseline]
    same = [
        labels[slug]
        for slug, own in scores.items()
        if slug != comparison.baseline
        and (shared := own.keys() & base.keys())
        and all(own[seed] == base[seed] for seed in shared)
    ]
    if same:
        yield (
            f"{', '.join(same)} scored exactly as the baseline with every seed: either the test has too few images "
            "to show a difference, or the attached layers have no effect."
        )
    constant = [labels[slug] for slug, own in scores.items() if len(own) > 1 and len(set(own.values())) == 1]
    if constant:
        yield f"Every seed of {', '.join(constant)} gave the same score, so the effect of chance on it is unknown."


def _unfinished(comparison: Comparison, trials: Trials, labels: Mapping[str, str]) -> Iterator[str]:
    for arm in comparison.arms:
        if lost := sum(trial["status"] != "done" for trial in trials[arm.slug].values()):
            failed = f"{lost} of {len(trials[arm.slug])} trials of {labels[arm.slug]} diverged or failed"
            yield (
                f"{failed}; its score is the mean of the others, which may be too high." if arm.n_done else f"{failed}."
            )


def _control_gains(comparison: Comparison, labels: Mapping[str, str], added: AddedParameters) -> Iterator[str]:
    for family in comparison.versus_control:
        gained = comparison[family.baseline].difference
        helping = [
            arm
            for arm in family.arms
            if not is_control(arm.slug)
            and comparison[arm.slug].verdict == "helps"
            and size(arm.slug, family.baseline, added) != "fewer"
        ]
        no_better = [labels[arm.slug] for arm in helping if gained and arm.difference and arm.difference.estimate <= 0]
        if no_better:
            higher = f"{labels[family.baseline]} scores at least as high as {', '.join(no_better)}"
            yield f"{higher}: parameters alone may explain the gain."


def _still_rising(comparison: Comparison, trials: Trials) -> Iterator[str]:
    every = [rows for found in trials.values() for rows in histories(found).values()]
    if max(map(len, every), default=0) == 1:
        yield (
            "One epoch does not show whether scores would rise further: this compares how fast the arms learn. "
            "Train for more --epochs."
        )
    rising, rise = last_rise(every)
    if 2 * rising > len(every) and rise > _SHORT_RISE * comparison.margin:
        yield (
            "The validation score still rises and the loss falls at the last epoch, "
            f"in {rising} of {len(every)} trials, by {rise:.1f} points on average: "
            "this compares how fast the arms learn as well as how far they get. Train for more --epochs."
        )


def _speed(comparison: Comparison, trials: Trials, labels: Mapping[str, str], equal_loss: EqualLoss) -> Iterator[str]:
    """Name the arms whose difference goes with a lower training loss: slow learning or low capacity may explain it."""
    base, found = comparison.baseline, defaultdict[str, list[str]](list)
    for arm in comparison.arms:
        if arm.verdict not in ("helps", "hurts") or arm.difference is None or is_control(arm.slug):
            continue
        slow, fast = (arm.slug, base) if arm.verdict == "hurts" else (base, arm.slug)
        high, low = last_loss(trials[slow]), last_loss(trials[fast])
        if not high > low:
            continue
        equal, why = equal_loss.get(arm.slug), f"{labels[slow]} learns more slowly, or cannot fit these data"
        if equal is None:
            yield (
                f"{labels[slow]} ends at a training loss of {high:.2g}, {labels[fast]} at {low:.2g}, "
                f"and the seeds cannot be compared at equal loss: {why}. {_LONGER}"
            )
        elif abs(equal["estimate"]) < _SPEED_SHARE * abs(arm.difference.estimate):
            estimate, low, high = (signed(equal[key], 1) for key in ("estimate", "low", "high"))
            at = f"at a training loss of {equal['train_loss']:.2g}: {why}"
            found[at].append(
                f"{labels[arm.slug]} ({arm.difference.gain} points in the end, {estimate} at equal loss, "
                f"95 % interval {low} to {high})"
            )
    for at, arms in found.items():
        yield (
            f"Most of the difference goes with a lower training loss: {', '.join(arms)}. Equal loss is measured on "
            f"validation images, {at}. {_LONGER}"
        )


def _scores(trials: Mapping[int, Mapping[str, Any]]) -> dict[int, float]:
    return {seed: trial["test_score"] for seed, trial in trials.items() if trial["status"] == "done"}
