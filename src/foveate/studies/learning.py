"""How fast the arms learn: whether scores still rise at the end, and the scores of two arms at equal training loss."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

Trials = Mapping[str, Mapping[int, Mapping[str, Any]]]

Rows = Sequence[Mapping[str, Any]]  # the epochs of a trial
_LEVEL = 0.95  # of an interval

EqualLoss = Mapping[str, Mapping[str, Any] | None]  # by arm, what `at_equal_loss` returns


def count_test_images(trials: Trials, label: int | None = None) -> int:
    """Return the number of test images, of one class if its label is given.

    It is 0 if a score is not a share of images, such as a detector's, or if no trial has finished.
    """
    tested = (trial["test"] for found in trials.values() for trial in found.values() if trial["status"] == "done")
    test = next((test for test in tested if "correct" in test), None)
    return 0 if test is None else test["count"] if label is None else sum(test["confusion"][label])


def resolution(trials: Trials, label: int | None = None) -> float:
    """Return how many points one of those test images is worth; 0 if `count_test_images` counts none."""
    images = count_test_images(trials, label)
    return 100 / images if images else 0.0


def histories(trials: Mapping[int, Mapping[str, Any]]) -> dict[int, Rows]:
    """Return the epochs of the finished trials of an arm, by seed."""
    return {seed: trial["history"] for seed, trial in trials.items() if trial["status"] == "done" and trial["history"]}


def last_loss(trials: Mapping[int, Mapping[str, Any]]) -> float:
    """Return the mean training loss of the last epoch over the finished trials of an arm, NaN without any."""
    losses = [rows[-1]["train_loss"] for rows in histories(trials).values()]
    return sum(losses) / len(losses) if losses else float("nan")


def last_rise(histories: Sequence[Rows]) -> tuple[int, float]:
    """Return in how many trials the last epoch is the best one, and the mean rise of the score in it, in points.

    The best epoch has the highest score and the lowest loss on val.
    """
    rising = [rows for rows in histories if len(rows) > 1 and _is_best(rows[-1], rows[:-1])]
    rises = [100 * (rows[-1]["val_score"] - rows[-2]["val_score"]) for rows in histories if len(rows) > 1]
    return len(rising), float(np.mean(rises)) if rises else 0.0


def at_equal_loss(arm: Mapping[int, Rows], baseline: Mapping[int, Rows]) -> dict[str, Any] | None:
    """Compare the validation scores of each seed at the training loss at which the slower learner ended.

    Return `{"seeds", "train_loss", "estimate", "low", "high"}`: points by which the arm is above the baseline, mean
    over the seeds that can be compared, with the interval of the paired t test; None if fewer than 2 can, for
    example because the faster one began below that loss.
    """
    pairs = [_pair(arm[seed], baseline[seed]) for seed in sorted(arm.keys() & baseline.keys())]
    found = np.array([pair for pair in pairs if pair is not None])
    if len(found) < 2:
        return None
    loss, gap = found.mean(0).tolist()
    spread = float(found[:, 1].std(ddof=1)) / np.sqrt(len(found))
    half = float(special.stdtrit(len(found) - 1, (1 + _LEVEL) / 2)) * float(spread)
    return {"seeds": len(found), "train_loss": loss, "estimate": gap, "low": gap - half, "high": gap + half}


def _is_best(last: Mapping[str, Any], before: Rows) -> bool:
    return all(last["val_score"] >= row["val_score"] and last["val_loss"] < row["val_loss"] for row in before)


def _pair(arm: Rows, baseline: Rows) -> tuple[float, float] | None:
    """Return the training loss at which two trials can be compared, and the arm's gain in points there."""
    if not arm or not baseline:
        return None
    loss = max(arm[-1]["train_loss"], baseline[-1]["train_loss"])
    scores = _score_at(loss, arm), _score_at(loss, baseline)
    return None if scores[0] is None or scores[1] is None else (loss, 100 * (scores[0] - scores[1]))


def _score_at(loss: float, rows: Rows) -> float | None:
    """Return the validation score where the training loss first passed `loss`, interpolated between two epochs."""
    if rows[-1]["train_loss"] == loss:
        return float(rows[-1]["val_score"])
    for before, after in itertools.pairwise(rows):
        if before["train_loss"] >= loss > after["train_loss"]:
            part = (before["train_loss"] - loss) / (before["train_loss"] - after["train_loss"])
            return float(before["val_score"] + part * (after["val_score"] - before["val_score"]))
    return None
