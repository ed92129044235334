"""results.json: everything a report says about a study, gathered from its record."""

import datetime
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

import foveate
from foveate.experiment.options import Resolved, StudyOptions
from foveate.experiment.seeds import seed_range
from foveate.studies.advice import advice
from foveate.studies.caveats import warnings
from foveate.studies.classes import class_changes, confusions
from foveate.studies.control import AddedParameters
from foveate.studies.design import Design
from foveate.studies.learning import Trials, at_equal_loss, histories, resolution
from foveate.studies.statistics import Comparison, compare, headline, sentences
from foveate.studies.study_folder import StudyFolder
from foveate.studies.verdict import is_control
from foveate.training import task
from foveate.user_code import short_name

_BASELINE = "none__host"
_UNCOMPARED = {
    "mean": None,
    "sd": None,
    "difference": None,
    "could_have_seen": None,
    "verdict": "not run",
    "words": "not run: no trial finished",
    "n_done": 0,
}

Score = Callable[[Mapping[str, Any]], float | None]


def gather(
    record: StudyFolder,
    trials: Trials,
    seeds: Sequence[int],
    costs: Mapping[str, Any],
    *,
    command: str,
    args: Mapping[str, Any],
    env: Mapping[str, Any],
    data: Mapping[str, Any],
) -> dict[str, Any]:
    """Judge the finished trials and return the content of results.json: scores in 0..1, differences in points."""
    study = record.study()["outline"]
    arms = study["arms"]
    names = {arm["slug"]: arm["label"] for arm in arms}
    chosen_task = task(args["task"])
    design = Design(*seed_range(args["seeds"]), len(seeds))
    comparison = judge(trials, args["margin"], design)
    added = {slug: cost["added_parameters"] for slug, cost in costs.items() if cost}
    judged = _describe(comparison, names, added, trials)
    curves = {slug: histories(found) for slug, found in trials.items()}
    equal_loss = {slug: at_equal_loss(rows, curves[_BASELINE]) for slug, rows in curves.items() if slug != _BASELINE}
    results = {
        "schema": 2,
        "foveate": foveate.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "args": dict(args),
        "changed": _changed(args),
        "env": dict(env),
        "data": dict(data),
        "measure": chosen_task.MEASURE,
        "object": chosen_task.OBJECT,
        "model": {"name": short_name(args["model"]), "parameters": study["host_parameters"]},
        "seeds": list(seeds),
        "margin": judged["margin"],
        "design": judged["design"],
        "warnings": warnings(comparison, trials, names, added, equal_loss),
        "verdict": judged["verdict"],
        "statistics": judged["statistics"],
        "versus_control": judged["versus_control"],
        "starts": judged["starts"],
        "arms": [
            _arm(record, arm, trials[arm["slug"]], judged["arms"][arm["slug"]], costs.get(arm["slug"]))
            | {"at_equal_loss": equal_loss.get(arm["slug"])}
            for arm in arms
        ],
        "also": {
            name: _describe(judge(trials, args["margin"], design, score), names, added, trials, score)
            for name in chosen_task.ALSO
            for score in [partial(_also, name)]
        },
        "class_measure": chosen_task.OF_CLASS,
        "classes": class_changes(trials, _BASELINE, data["classes"], chosen_task.class_scores, design),
        "confusion": confusions(trials, _BASELINE, _best(judged["arms"])),
        "failures": [
            {key: trial[key] for key in ("arm", "seed", "status", "error")}
            for found in trials.values()
            for trial in found.values()
            if trial["status"] != "done"
        ],
    }
    return {**results, "advice": advice(results)}


def _changed(args: Mapping[str, Any]) -> list[str]:
    """Return the names of the options that are not at their defaults for the task and the data."""
    options = Resolved.from_dict(dict(args))
    default = StudyOptions(task=options.task, data=options.data).resolve().asked()
    return [name for name, value in options.asked().items() if value != default[name]]


def _best(judged: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the attention arm with the highest mean score."""
    means = {
        slug: arm["mean"]
        for slug, arm in judged.items()
        if slug != _BASELINE and not is_control(slug) and arm["mean"] is not None
    }
    return max(means, key=means.__getitem__, default=None)


def judge(
    trials: Trials,
    margin: float,
    design: Design,
    score: Score = operator.itemgetter("test_score"),
) -> Comparison:
    """Compare the arms by one score, 0..1; a trial without that score counts as failed."""
    points = {
        slug: {seed: 100 * value for seed, value in _scores(found, score).items()} for slug, found in trials.items()
    }
    return compare(points, _BASELINE, margin=margin, design=design, resolution=resolution(trials))


def _scores(trials: Mapping[int, Mapping[str, Any]], score: Score) -> dict[int, float]:
    return {
        seed: value
        for seed, trial in sorted(trials.items())
        if trial["status"] == "done" and (value := score(trial)) is not None
    }


def _also(measure: str, trial: Mapping[str, Any]) -> float | None:
    return trial["test"][measure]


def _describe(
    comparison: Comparison,
    names: Mapping[str, str],
    added: AddedParameters,
    trials: Trials,
    score: Score = operator.itemgetter("test_score"),
) -> dict[str, Any]:
    judged = comparison.to_dict()
    arms = {slug: {**_UNCOMPARED, **judged["arms"].get(slug, {})} for slug in names}
    for slug, arm in arms.items():
        arm |= {key: None if arm[key] is None else arm[key] / 100 for key in ("mean", "sd")}
        arm["scores"] = {str(seed): value for seed, value in _scores(trials[slug], score).items()}
    return {
        **judged,
        "arms": arms,
        "verdict": {
            "headline": headline(comparison, names, added),
            "sentences": sentences(comparison, names, added),
        },
    }


def _arm(
    record: StudyFolder,
    arm: Mapping[str, Any],
    trials: Mapping[int, Mapping[str, Any]],
    judged: Mapping[str, Any],
    cost: Any,
) -> dict[str, Any]:
    done = {seed: trial for seed, trial in sorted(trials.items()) if trial["status"] == "done"}
    with_maps = [path for seed in done if (path := record.trial_folder(arm["slug"], seed) / "maps.npz").is_file()]
    return {
        **{key: arm[key] for key in ("slug", "label", "mechanism", "where", "start", "options", "plan", "sites")},
        **judged,
        "cost": cost,
        "pointing_game": _pointing_game([trial["pointing_game"] for trial in done.values() if trial["pointing_game"]]),
        "curves": {str(seed): trial["history"] for seed, trial in sorted(trials.items()) if trial["history"]},
        "maps": with_maps[0].relative_to(record.folder).as_posix() if with_maps else None,
    }


def _pointing_game(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the means over seeds; "sd" is the standard deviation of the mass."""
    kinds = sorted({kind for one in found for kind in one})
    means = {}
    for kind in kinds:
        rows = [one[kind] for one in found if kind in one]
        means[kind] = {key: float(np.mean([row[key] for row in rows])) for key in ("mass", "area", "ratio", "pointing")}
        means[kind]["sd"] = float(np.std([row["mass"] for row in rows], ddof=1)) if len(rows) > 1 else None
    return means or None
