"""Class by class: how each arm differs from the plain host, and the confusion matrices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from foveate.studies.design import Design
from foveate.studies.learning import Trials, resolution
from foveate.studies.statistics import compare

LEVEL = 0.95  # of all intervals together


def class_changes(
    trials: Trials,
    baseline: str,
    names: Sequence[str],
    scores: Callable[[Mapping[str, Any]], Sequence[float | None]],
    design: Design | None = None,
) -> list[dict[str, Any]]:
    """Return for each class its mean score on the baseline (0..1) and each arm's difference from it, in points.

    `scores` returns the score of each class of a trial. The arms are compared in the same way as by the main score, one
    class at a time at the level 1 - 0.05 / classes, so that the intervals hold for all arms and all classes together
    (Bonferroni), and at every look of the design. No spread is assumed to be smaller than one test image of the class
    is worth.
    """
    tables = [_table(trials, scores, k) for k in range(len(names))]
    known = sum(bool(table[baseline]) for table in tables)
    changes = []
    for label, (name, table) in enumerate(zip(names, tables, strict=True)):
        host = list(table[baseline].values())
        level = 1 - (1 - LEVEL) / max(known, 1)
        step = resolution(trials, label)
        arms = compare(table, baseline, level=level, design=design, resolution=step).arms if host else ()
        spans = {
            arm.slug: arm.difference and {key: getattr(arm.difference, key) for key in ("estimate", "low", "high")}
            for arm in arms
        }
        changes.append(
            {
                "name": name,
                "host": float(np.mean(host)) / 100 if host else None,
                "arms": {s: d for s, d in spans.items() if s != baseline},
            }
        )
    return changes


def confusions(trials: Trials, baseline: str, best: str | None) -> dict[str, list[list[int]]]:
    """Return the confusion matrices of the baseline and of one arm, each summed over the seeds that both finished."""
    slugs = [baseline, *([best] if best else [])]
    seeds = set.intersection(*(set(_done(trials[slug])) for slug in slugs))
    if not seeds:
        return {}
    return {
        slug: np.sum([trials[slug][seed]["test"]["confusion"] for seed in seeds], axis=0).tolist() for slug in slugs
    }


def _table(
    trials: Trials, scores: Callable[[Mapping[str, Any]], Sequence[float | None]], k: int
) -> dict[str, dict[int, float]]:
    """Return the score of class k in percent, by arm and seed."""
    return {
        slug: {
            seed: 100 * value for seed, trial in _done(found).items() if (value := scores(trial["test"])[k]) is not None
        }
        for slug, found in trials.items()
    }


def _done(found: Mapping[int, Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    return {seed: trial for seed, trial in found.items() if trial["status"] == "done"}
