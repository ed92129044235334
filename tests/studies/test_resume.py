"""Studies that are interrupted in every way, and resumed to the end."""

import dataclasses
import json
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from foveate import files
from foveate.errors import UsageError
from foveate.studies import engine, run
from foveate.studies.outline import Outline
from foveate.studies.run import Progress, run_study
from studies.tiny import pretending, results_of, start_study, tiny, wait_for
from work import HANG

QUICK = {"seeds": 3, "jobs": 2, "name": "s"}
PAUSED = pretending(pause=0.05)


def finish(project: Path, **changes: Any) -> Path:
    """Run the study to its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_BOOT", PAUSED)
        patch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))
        folder = run_study(tiny(project, **{**QUICK, **changes}), command="foveate study")
    assert folder is not None
    return folder


def trial_files(project: Path) -> list[Path]:
    return sorted((project / "study" / "s" / "trials").glob("*/trial.json"))


def they_end(processes: list[psutil.Process]) -> bool:
    return wait_for(lambda: not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes))


def everything_is_readable(folder: Path) -> None:
    for path in folder.rglob("*.json"):
        json.loads(path.read_text())
    list(files.read_lines(folder / "log.jsonl"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was not interrupted."""
    return finish(tmp_path_factory.mktemp("undisturbed"))


def kill_and_resume(project: Path, moment: Callable[[], bool], seconds: float, whole: Path) -> None:
    """Kill the study at a moment or after some seconds, then finish it: all files complete, and the same result."""
    process = start_study(project, PAUSED, **QUICK)
    assert wait_for(lambda: (project / "study" / "s" / "study.json").exists())
    assert (project / "study" / "s" / files.LOCK).exists(), "it holds its folder"
    wait_for(lambda: process.poll() is not None or moment(), seconds)
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.kill()
    process.communicate()
    assert they_end(children), "an orphan was left"
    everything_is_readable(project / "study" / "s")
    done = {path: path.stat().st_mtime_ns for path in trial_files(project)}
    folder = finish(project, resume=True)
    assert {path: path.stat().st_mtime_ns for path in done} == done, "a finished trial was repeated"
    assert results_of(folder) == results_of(whole)
    assert not list(folder.rglob(f"*{files.TEMPORARY}"))
    assert not (folder / files.LOCK).exists()


@pytest.mark.reliability(15)
def test_killed_in_the_middle(tmp_path: Path, whole: Path) -> None:
    kill_and_resume(tmp_path, lambda: len(trial_files(tmp_path)) >= 2, HANG, whole)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
@pytest.mark.reliability(15)
def test_killed_at_any_time(tmp_path: Path, whole: Path, seed: int) -> None:
    kill_and_resume(tmp_path, lambda: False, random.Random(seed).uniform(0, 6), whole)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
@pytest.mark.reliability(16)
def test_a_signal_stops_everything_and_no_other_trial_begins(tmp_path: Path, number: int) -> None:
    process = start_study(tmp_path, pretending(pause=0.2), **{**QUICK, "seeds": 9})
    assert wait_for(lambda: len(trial_files(tmp_path)) >= 1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    process.communicate(timeout=HANG)
    assert children
    assert len(trial_files(tmp_path)) < 18
    assert they_end(children)
    everything_is_readable(tmp_path / "study" / "s")


@pytest.mark.parametrize("how", ["resume", "exist_ok"])
def test_a_study_that_another_process_works_on_is_refused(whole: Path, how: str) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with files.locked(whole), pytest.raises(UsageError, match="another process is working on"):
        run_study(tiny(whole.parents[1], **{**QUICK, how: True}))
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


class Kept(Progress):
    """Keeps the outline."""

    def outlined(self, plan: Outline) -> None:
        self.plan = plan


def test_a_resumed_study_shows_the_remaining_time(whole: Path) -> None:
    kept = Kept()
    run_study(tiny(whole.parents[1], **{**QUICK, "resume": True, "dry_run": True}), progress=kept)
    assert "= 6 trials of 1 epoch, 6 of them finished, 2 at once on cpu; about " in str(kept.plan)
    from_start, one_left = (dataclasses.replace(kept.plan, finished=count) for count in (0, 5))
    a_trial = 1 + 2 * min(one_left.steps.values())  # at least: two steps of 32 scenes
    assert kept.plan.seconds + a_trial < one_left.seconds < from_start.seconds
    more_jobs = dataclasses.replace(one_left, jobs=8)
    assert more_jobs.seconds == one_left.seconds, "one trial takes its time, however many could run"


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"epochs": 2}, "epochs: 1 -> 2"),
        ({"freeze": True}, "freeze: False -> True"),
        ({"freeze_epochs": 1}, "freeze_epochs: 0 -> 1"),
        ({"attention_lr": 0.1}, "attention_lr: None -> 0.1"),
    ],
    ids=str,
)
def test_changed_arguments_are_refused_and_nothing_changes(
    whole: Path, changed: dict[str, Any], difference: str
) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=difference):
        run_study(tiny(whole.parents[1], **{**QUICK, **changed, "resume": True}))
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before
