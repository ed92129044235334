"""Changes class by class, on trials whose every difference is known."""

from typing import Any

import numpy as np
import pytest

from foveate.studies.classes import class_changes, confusions
from foveate.studies.design import Design
from foveate.studies.statistics import compare
from foveate.training import task

HOST, SE = "none__host", "se__residual"


def trials(seeds: int = 4) -> dict[str, dict[int, dict[str, Any]]]:
    """Return trials of two arms; SE finds 10 more of 100 images of class a, as many of b, and c has no images."""
    rng = np.random.default_rng(0)
    found: dict[str, dict[int, dict[str, Any]]] = {HOST: {}, SE: {}}
    for seed in range(seeds):
        luck = int(rng.integers(-5, 5))
        for slug, gain in ((HOST, 0), (SE, 10)):
            a, b = 60 + luck + gain + int(rng.integers(-1, 2)), 70 + luck + int(rng.integers(-1, 2))
            confusion = [[a, 100 - a, 0], [100 - b, b, 0], [0, 0, 0]]
            found[slug][seed] = {"status": "done", "test": {"correct": a + b, "count": 200, "confusion": confusion}}
    return found


def changes(found: dict[str, dict[int, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in class_changes(found, HOST, ["a", "b", "c"], task("classify").class_scores)}


def test_each_class_is_compared_with_the_host_by_its_recall() -> None:
    found = trials()
    by_class = changes(found)
    recalls = [[found[slug][seed]["test"]["confusion"][0][0] for seed in range(4)] for slug in (HOST, SE)]
    assert by_class["a"]["host"] == pytest.approx(np.mean(recalls[0]) / 100)
    assert by_class["a"]["arms"][SE]["estimate"] == pytest.approx(np.mean(recalls[1]) - np.mean(recalls[0]))
    assert by_class["a"]["arms"][SE]["low"] > 0
    assert by_class["b"]["arms"][SE]["low"] < 0 < by_class["b"]["arms"][SE]["high"]
    assert by_class["c"] == {"name": "c", "host": None, "arms": {}}


def test_the_intervals_hold_for_all_classes_at_once() -> None:
    found = trials()
    scores = {
        slug: {seed: float(trial["test"]["confusion"][0][0]) for seed, trial in arm.items()}
        for slug, arm in found.items()
    }
    one_class = compare(scores, HOST, resolution=1)[SE].difference
    both = compare(scores, HOST, level=0.975, resolution=1)[SE].difference  # two classes have images
    assert one_class is not None
    assert both is not None
    assert changes(found)["a"]["arms"][SE]["low"] == pytest.approx(both.low)
    assert both.low < one_class.low


def test_the_intervals_allow_for_every_look_of_a_sequential_study() -> None:
    once, looked = (
        class_changes(trials(), HOST, ["a", "b", "c"], task("classify").class_scores, design)[0]["arms"][SE]
        for design in (Design(4, 4, 4), Design(3, 6, 4))
    )
    assert looked["estimate"] == once["estimate"]
    assert looked["high"] - looked["low"] > 1.2 * (once["high"] - once["low"])


def test_a_class_with_equal_scores_has_an_interval_of_what_one_picture_is_worth() -> None:
    found = trials()
    for slug, right in ((HOST, 6), (SE, 7)):
        for trial in found[slug].values():
            trial["test"]["confusion"][0] = [right, 10 - right, 0]
    same = changes(found)["a"]["arms"][SE]
    worth = compare(
        {HOST: dict.fromkeys(range(4), 60.0), SE: dict.fromkeys(range(4), 70.0)}, HOST, level=0.975, resolution=10
    )
    difference = worth[SE].difference
    assert difference is not None
    assert (same["low"], same["high"]) == pytest.approx((difference.low, difference.high))
    assert same["high"] - same["low"] > 10


def test_a_trial_that_failed_is_left_out() -> None:
    found = trials()
    found[SE][3] = {"status": "failed", "test": None}
    assert changes(found)["a"]["arms"][SE] is not None
    pooled = confusions(found, HOST, SE)
    assert np.sum(pooled[HOST]) == np.sum(pooled[SE]) == 3 * 200
    assert pooled[SE][0][0] == sum(found[SE][seed]["test"]["confusion"][0][0] for seed in range(3))


def test_one_seed_gives_no_interval_and_no_common_seed_no_matrix() -> None:
    found = trials(1)
    assert changes(found)["a"]["arms"] == {SE: None}
    found[SE] = {0: {"status": "failed", "test": None}}
    assert confusions(found, HOST, SE) == {}
    assert set(confusions(found, HOST, None)) == {HOST}


def test_a_detector_is_scored_by_the_ap50_of_each_class() -> None:
    assert task("detect").class_scores({"classes": [{"ap50": 0.5, "ap": 0.1}, {"ap50": None, "ap": None}]}) == [
        0.5,
        None,
    ]
