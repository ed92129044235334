"""Studies that take seconds, and a replacement for training in tests of processes and files."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from foveate.experiment.arms import Arm
from foveate.experiment.options import StudyOptions
from foveate.studies.engine import Event
from foveate.studies.trial import Trial, blank, run_trial
from foveate.training import EpochRow
from work import HANG

SCENES: dict[str, Any] = {"canvas": 24, "fragments": 2, "train_count": 64, "val_count": 20, "test_count": 40}


def tiny(project: Path, **changes: Any) -> StudyOptions:
    """One epoch of 64 scenes, plain host and SE, one seed."""
    scenes = {} if changes.get("data") else SCENES
    values: dict[str, Any] = {
        **scenes,
        "attention": ("se",),
        "control": False,
        "seeds": 1,
        "epochs": 1,
        "batch": 32,
        "jobs": 1,  # a process of a trial takes seconds to start
    }
    return StudyOptions(**{**values, "project": project, **changes})


# What each trial does instead of training: its score depends on the arm and the seed, and it writes what a trial
# writes. The process has no `foveate.studies.trial`, whose import brings torch, which takes two seconds.
PRETEND = """
import os, time, types
from pathlib import Path
from foveate import files

class Named(types.SimpleNamespace):
    @classmethod
    def from_dict(cls, values):
        return cls(**dict(values, folder=Path(values["folder"]), arm=cls(**values["arm"])))

    def to_dict(self):
        return vars(self)

def pretend(trial, on_epoch):
    {before}
    rows = [Named(**dict(zip({columns}, (epoch, 1 / epoch, 1 / epoch, 0.5, 0.0)))) for epoch in (1, 2)]
    for row in rows:
        time.sleep({pause})
        on_epoch(row)
    slug = trial.folder.name.partition("__seed")[0]
    score = (len(slug) * 37 + trial.seed * 11) % 41
    confusion = [[score, 40 - score] + 8 * [0]] + 9 * [10 * [0]]
    outcome = dict(test_score=score / 40, test_loss=1.0, test=dict(correct=score, count=40, confusion=confusion))
    history = [row.to_dict() for row in rows]
    known = dict(arm=slug, seed=trial.seed, status="done", best_epoch=2, val_score=0.5, history=history)
    written = dict({empty}, **outcome) | known
    files.write_csv(trial.folder / "history.csv", history, {columns})
    files.write_json(trial.folder / "trial.json", written)
    {after}
    return written

sys.modules["foveate.studies.trial"] = types.ModuleType("trial")
sys.modules["foveate.studies.trial"].__dict__.update(Trial=Named, run_trial=pretend)
from foveate.studies.worker import main
main()
"""


def pretending(before: str = "pass", after: str = "pass", pause: float = 0.0) -> str:
    """Return the code of a worker that does not train; it runs the lines `before` and `after` around each `trial`."""
    empty = blank(Trial(Path(), tiny(Path()).resolve(), Arm("none"), 0, {}, 1, False))
    columns = list(EpochRow.__annotations__)
    return PRETEND.format(before=before, after=after, pause=pause, empty=empty, columns=columns)


class InProcess:
    """An engine that trains in this process, one trial after another, so that no worker has to start."""

    def run(self, trials: Sequence[Trial], on_event: Callable[[Event], None]) -> None:
        for trial in trials:

            def report(row: EpochRow, trial: Trial = trial) -> None:
                on_event(Event("epoch", trial, row=row.to_dict()))

            on_event(Event("started", trial))
            on_event(Event("done", trial, status=run_trial(trial, report)["status"]))


def start_command(project: Path, boot: str, **changes: Any) -> "subprocess.Popen[bytes]":
    """Start `foveate study` as a user does, but with workers that run the code `boot`, and invented latencies."""
    values = {**SCENES, "attention": "se", "epochs": 1, "batch": 32, "jobs": 2, "name": "s", "project": project}
    options = [str(word) for name, value in {**values, **changes}.items() for word in _as_words(name, value)]
    code = f"""
from foveate import cli
from foveate.studies import engine, run
engine._BOOT = {boot!r}
run.measure_costs = lambda models, shape, **_: {{name: None for name in models}}
cli.main({["study", "--no-control", *options]!r})
"""
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=environment())


def _as_words(name: str, value: Any) -> tuple[Any, ...]:
    option = "--" + name.replace("_", "-")
    return (option,) if value is True else (option, value)


def start_study(project: Path, boot: str, **changes: Any) -> "subprocess.Popen[bytes]":
    """Start a study in a separate process, whose workers run the code `boot` and whose latencies are invented."""
    options = json.dumps(tiny(project, **changes).to_dict())
    code = f"""
import json, sys
from foveate.studies import engine, run
from foveate.experiment.options import StudyOptions
engine._BOOT = {boot!r}
run.measure_costs = lambda models, shape, **_: {{name: None for name in models}}
run.run_study(StudyOptions.from_dict(json.loads({options!r})), command="foveate study")
"""
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, env=environment())


def environment() -> dict[str, str]:
    """Return the environment in which a fresh Python finds this package and the tests' modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def wait_for(condition: Callable[[], bool], seconds: float = HANG) -> bool:
    """Wait until a condition holds; return False if it does not in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def results_of(folder: Path) -> dict[str, Any]:
    """Return results.json without the values that differ between two runs of one study: dates and durations."""
    passing = ("created", "seconds", "waiting", "latency", "project", "name", "resume")

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(item) for key, item in value.items() if key not in passing}
        return [timeless(item) for item in value] if isinstance(value, list) else value

    return timeless(json.loads((folder / "results.json").read_text()))
