"""Studies that add seeds one by one, with results in storage that drivers share, after each other or at once."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from foveate.studies import ray_engine, remote_trial, run
from foveate.studies.engine import Event
from foveate.studies.run import run_study
from foveate.studies.trial import Trial
from object_store import made
from studies.test_sequential import Scored
from studies.test_shared_results import Remote, connect_in_this_process
from studies.tiny import tiny

SEEDS = "3..9"


@pytest.fixture(autouse=True)
def _nothing_is_trained_or_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def invented(trial: Trial) -> Iterator[dict[str, Any]]:
        yield {"event": "epoch", "row": {}}
        Scored(gain=1.2, noise=0.5).run([trial], lambda event: None)

    monkeypatch.setattr(remote_trial, "_train", invented)
    monkeypatch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))
    connect_in_this_process(monkeypatch)


@pytest.fixture(params=["folder", *(pytest.param(name, marks=pytest.mark.slow) for name in ("memory", "s3"))])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with made(request.param, tmp_path, monkeypatch) as empty:
        yield empty


class Driver:
    """A study in a project of its own; `after` is called when it has heard of so many trials."""

    def __init__(self, project: Path, place: str, monkeypatch: pytest.MonkeyPatch):
        self.project, self.place, self.patch = project, place, monkeypatch

    def run(
        self, resume: bool, count: int = 99, after: Callable[[], object] = lambda: None
    ) -> tuple[dict[str, Any], int]:
        """Return what the study found, and how many trials it trained itself."""
        engine = Counting(count, after)
        self.patch.setattr(ray_engine, "RayEngine", engine.of)
        options = tiny(self.project, seeds=SEEDS, engine="ray", jobs=None, results=self.place, name="s", resume=resume)
        folder = run_study(options, command="foveate study")
        assert folder is not None
        return found(folder), engine.trained


class Counting(Remote):
    def __init__(self, count: int, after: Callable[[], object]):
        super().__init__()
        self.left, self.after = count, after

    def of(self, options: Any, content: str, shared: Any) -> "Counting":
        self.shared = shared
        return self

    def run(self, trials: Sequence[Trial], on_event: Callable[[Event], None]) -> None:
        def heard(event: Event) -> None:
            on_event(event)
            self.left -= 1
            if not self.left:
                self.after()

        super().run(trials, heard)


def found(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text())
    return {key: results[key] for key in ("seeds", "design", "verdict", "statistics")}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, Any]:
    """What one driver finds on one machine."""
    folder = run_study(
        tiny(tmp_path / "whole", seeds=SEEDS, name="s"), command="foveate study", engine=Scored(gain=1.2, noise=0.5)
    )
    assert folder is not None
    assert len(found(folder)["seeds"]) > 4
    return found(folder)


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("count", [7, pytest.param(2, marks=pytest.mark.slow)])
def test_drivers_that_follow_each_other_have_the_table_of_one(
    place: str, count: int, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ends before or after the least number of seeds has run."""
    first, second, third = (Driver(tmp_path / name, place, monkeypatch) for name in ("first", "second", "third"))
    with pytest.raises(KeyboardInterrupt):
        first.run(resume=False, count=count, after=killed)
    trials = 2 * len(whole["seeds"])
    assert second.run(resume=True) == (whole, trials - count)
    assert third.run(resume=True) == (whole, 0)
    assert first.run(resume=True) == (whole, 0)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("count", [7, pytest.param(2, marks=pytest.mark.slow)])
def test_drivers_that_work_at_once_have_the_table_of_one(
    place: str, count: int, tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds the trials of the first, and the first goes on with those of the second."""
    first, second, third = (Driver(tmp_path / name, place, monkeypatch) for name in ("first", "second", "third"))
    seconds: list[tuple[dict[str, Any], int]] = []
    mine = first.run(resume=False, count=count, after=lambda: seconds.append(second.run(resume=True)))
    trials = 2 * len(whole["seeds"])
    assert mine == (whole, count)
    assert seconds == [(whole, trials - count)]
    assert third.run(resume=True) == (whole, 0)
