"""A study whose files cannot be written: killed at every point, and disks that are full, broken or read-only."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foveate import files
from foveate.errors import UsageError
from foveate.experiment.data import open_study_data
from foveate.studies import run
from foveate.studies.run import run_study
from studies.faults import ERRORS, STAGES, Point, failing_from, killed_at, reached_by
from studies.test_sequential import Scored
from studies.tiny import results_of, tiny

FILES = (
    *("args.yaml", "env.json", "data.json", "study.json", "log.jsonl", "history.csv", "trial.json"),
    *("summary.csv", "failures.csv", "costs.json", "results.json", "MODEL_CARD.md", "report.html"),
)

SEEDS = {"seeds": "2..3"}


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_measured() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))
        patch.setattr("foveate.studies.outline._step_seconds", lambda *_: 0.01)
        # One outline for all studies: in a copy of this process torch's threads do not exist, so no network can run.
        plan = run.outline(tiny(Path(), **SEEDS).resolve(), open_study_data(tiny(Path()).resolve()))
        patch.setattr(run, "outline", lambda options, data: dataclasses.replace(plan, options=options))
        yield


def study(project: Path, **changes: Any) -> Path:
    """Run a study that looks after every seed, and ends after the third."""

    def report(folder: Path) -> None:
        files.write_bytes(folder / "report.html", b"<!doctype html>")

    options = tiny(project, name="s", **SEEDS, **changes)
    folder = run_study(options, engine=Scored(1.0), command="foveate study", report=report)
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Point]]:
    """The folder of a study without faults, and the points that it reached."""
    project, found = tmp_path_factory.mktemp("whole"), list[Path]()
    points = reached_by(lambda: found.append(study(project)))
    return found[0], points


def test_the_points_are_those_of_every_file_of_a_study(whole: tuple[Path, list[Point]]) -> None:
    folder, points = whole
    assert {path.name for path in folder.rglob("*") if path.is_file()} == set(FILES)
    logged = ("open", "write")
    expected = {(stage, name) for name in FILES for stage in (logged if name == "log.jsonl" else STAGES)}
    assert {point[:2] for point in points} == expected


def resume(project: Path, whole: Path) -> None:
    """Finish the study of a project as a user does, and compare it with one that had no faults."""
    kept = {path: path.stat().st_mtime_ns for path in project.rglob("trial.json")}
    for path in project.rglob("*.json"):
        json.loads(path.read_bytes())
    for path in project.rglob("*.csv"):
        assert path.read_bytes().endswith(b"\n")
    try:
        folder = study(project, resume=True)
    except UsageError:
        assert not kept
        assert not (project / "study" / "s" / "study.json").exists(), "there was a study to resume"
        folder = study(project)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "a finished trial was repeated"
    assert results_of(folder) == results_of(whole)
    for name in ("summary.csv", "failures.csv"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert not list(folder.rglob(f"*{files.TEMPORARY}"))
    assert not (folder / files.LOCK).exists()


def in_another_process(act: Callable[[], object]) -> int:
    """Run a call in a copy of this process, and return how that ended: minus the signal, or 0, or 1 for an error."""
    child = os.fork()
    if not child:
        try:
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def of(points: list[Point], stage: str, name: str) -> list[Point]:
    return [point for point in points if point[:2] == (stage, name)]


def killed(project: Path, point: Point, whole: Path) -> None:
    def act() -> None:
        with killed_at(point):
            study(project)

    assert in_another_process(act) == -signal.SIGKILL
    resume(project, whole)


@pytest.mark.reliability(15)
@pytest.mark.parametrize(("stage", "name"), [("write", "log.jsonl"), ("write", "trial.json"), ("sync", "study.json")])
def test_killed_at_a_point(tmp_path: Path, whole: tuple[Path, list[Point]], stage: str, name: str) -> None:
    killed(tmp_path, of(whole[1], stage, name)[-1], whole[0])


@pytest.mark.slow
@pytest.mark.reliability(15)
@pytest.mark.parametrize("name", FILES)
def test_killed_at_every_point(tmp_path: Path, whole: tuple[Path, list[Point]], tried: Any, name: str) -> None:
    mine = [point for point in whole[1] if point[1] == name]
    for number, point in enumerate(mine):
        killed(tmp_path / str(number), point, whole[0])
    tried(len(mine))


def refused(project: Path, point: Point, code: int, whole: Path) -> None:
    with failing_from(point, code), pytest.raises(OSError, match=os.strerror(code)):
        study(project)
    resume(project, whole)


@pytest.mark.reliability(17)
@pytest.mark.parametrize(
    ("kind", "name"), [("full disk", "study.json"), ("read-only", "trial.json"), ("broken disk", "results.json")]
)
def test_a_disk_that_fails(tmp_path: Path, whole: tuple[Path, list[Point]], kind: str, name: str) -> None:
    stage, code = ERRORS[kind]
    refused(tmp_path, of(whole[1], stage, name)[-1], code, whole[0])


@pytest.mark.slow
@pytest.mark.reliability(17)
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ERRORS)
def test_a_disk_that_fails_at_every_point(
    tmp_path: Path, whole: tuple[Path, list[Point]], tried: Any, kind: str, name: str
) -> None:
    stage, code = ERRORS[kind]
    mine = of(whole[1], stage, name)
    for number, point in enumerate(mine):
        refused(tmp_path / str(number), point, code, whole[0])
    tried(len(mine))
