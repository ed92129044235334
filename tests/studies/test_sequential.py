"""Studies that add seeds one by one: when they stop, what they record, and how they are resumed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from foveate.errors import UsageError
from foveate.experiment.options import StudyOptions
from foveate.experiment.seeds import seed_range
from foveate.studies import run
from foveate.studies.design import Design
from foveate.studies.engine import Event
from foveate.studies.outline import Outline
from foveate.studies.run import Progress, run_study
from foveate.studies.study_folder import StudyFolder
from foveate.studies.trial import Trial, blank, write_trial
from studies.tiny import tiny

CONFUSION = [[int(row == column) for column in range(10)] for row in range(10)]


class Scored:
    """An engine that writes invented scores, in percent, instead of training; it may stop after so many trials."""

    def __init__(
        self,
        gain: float,
        noise: float = 0.3,
        breaks_after: int | None = None,
        lost: Sequence[int] = (),
        how: str = "diverged",
        arm: str = "se",
    ):
        self.gain, self.noise, self.left, self.lost, self.how, self.arm = gain, noise, breaks_after, lost, how, arm
        self.ran: list[tuple[str, int]] = []

    def run(self, trials: Sequence[Trial], on_event: Any) -> None:
        for trial in trials:
            if self.left == len(self.ran):
                raise KeyboardInterrupt
            self.ran.append((trial.arm.slug, trial.seed))
            status = self.how if trial.arm.slug.startswith(self.arm) and trial.seed in self.lost else "done"
            score = (
                80
                + self.gain * trial.arm.is_attention
                + self.noise * ((7 * trial.seed + 3 * trial.arm.is_attention) % 5 - 2)
            )
            scored = {"status": status, "best_epoch": 1, "val_score": 0.5, "test_score": score / 100, "test_loss": 1.0}
            write_trial(
                trial.folder, {**blank(trial), **scored, "test": {"correct": 8, "count": 2000, "confusion": CONFUSION}}
            )
            on_event(Event("done", trial, status=status))


@pytest.fixture(autouse=True)
def _no_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))


def study(project: Path, engine: Scored, seeds: int | str = "3..9", **changes: Any) -> dict[str, Any]:
    folder = run_study(tiny(project, seeds=seeds, name="s", **changes), engine=engine, command="foveate study")
    assert folder is not None
    return json.loads((folder / "results.json").read_text())


def test_a_study_stops_when_every_arm_is_decided(tmp_path: Path) -> None:
    engine = Scored(gain=8.0)
    results = study(tmp_path, engine)
    count = len(results["seeds"])
    assert 3 <= count < 9
    assert results["design"] == {"kind": "sequential", "least": 3, "most": 9, "looks": count - 2}
    assert results["arms"][1]["verdict"] == "helps"
    assert results["arms"][1]["n_done"] == count
    assert engine.ran == [(slug, seed) for seed in range(count) for slug in ("none__host", "se-identity__residual")]
    record = StudyFolder(tmp_path / "study" / "s")
    assert record.study()["stopped"] == {"seeds": count, "why": "every arm is decided"}
    assert results["args"]["seeds"] == "3..9"
    assert len((record.folder / "summary.csv").read_text().splitlines()) == 1 + 2 * count
    assert "Seeds were added one by one, 3 to at most 9" in " ".join(results["verdict"]["sentences"])


def test_an_arm_that_stays_undecided_takes_the_maximum_of_seeds(tmp_path: Path) -> None:
    results = study(tmp_path, Scored(gain=0.9, noise=1.0), seeds="3..5")
    assert len(results["seeds"]) == 5
    assert results["arms"][1]["verdict"] == "undecided"
    assert StudyFolder(tmp_path / "study" / "s").study()["stopped"]["why"] == "the maximum number of seeds has run"


def test_a_fixed_number_of_seeds_is_not_looked_at_in_between(tmp_path: Path) -> None:
    results = study(tmp_path, Scored(gain=8.0), seeds=6)
    assert len(results["seeds"]) == 6
    assert results["design"] == {"kind": "fixed", "least": 6, "most": 6, "looks": 1}
    assert "stopped" not in StudyFolder(tmp_path / "study" / "s").study()


@pytest.mark.parametrize("trials", [3, 7, 9])
def test_an_interrupted_study_ends_like_one_that_was_not_interrupted(tmp_path: Path, trials: int) -> None:
    whole = study(tmp_path / "whole", Scored(gain=1.2, noise=0.5))
    assert len(whole["seeds"]) > 4
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "cut", Scored(gain=1.2, noise=0.5, breaks_after=trials))
    engine = Scored(gain=1.2, noise=0.5)
    resumed = study(tmp_path / "cut", engine, resume=True)
    assert len(engine.ran) == 2 * len(whole["seeds"]) - trials
    for key in ("seeds", "design", "verdict", "statistics"):
        assert resumed[key] == whole[key]
    again = Scored(gain=1.2)
    assert study(tmp_path / "cut", again, resume=True)["seeds"] == whole["seeds"]
    assert again.ran == []


def test_further_seeds_run_after_diverged_trials(tmp_path: Path) -> None:
    results = study(tmp_path, Scored(gain=8.0, lost=(0, 2)), seeds="3..12")
    assert results["arms"][1]["verdict"] == "helps"
    assert results["arms"][1]["n_done"] == len(results["seeds"]) - 2
    assert any("2 of" in warning and "diverged" in warning for warning in results["warnings"])


def test_a_crashed_trial_is_not_repeated_at_every_look(tmp_path: Path) -> None:
    engine = Scored(gain=0.9, noise=1.0, lost=(1,), how="failed")
    results = study(tmp_path, engine, seeds="3..6")
    assert engine.ran.count(("se-identity__residual", 1)) == 1
    assert (len(results["seeds"]), results["arms"][1]["n_done"]) == (6, 5)
    again = Scored(gain=0.9, noise=1.0)
    assert study(tmp_path, again, seeds="3..6", resume=True)["arms"][1]["n_done"] == 6
    assert again.ran == [("se-identity__residual", 1)]


def test_an_arm_without_a_finished_trial_does_not_prolong_the_study(tmp_path: Path) -> None:
    results = study(tmp_path, Scored(gain=8.0, lost=range(20)), seeds="3..20")
    assert len(results["seeds"]) == 3
    assert results["arms"][1]["verdict"] == "not run"


def test_a_plain_host_that_never_finishes_ends_the_study_after_the_minimum_of_seeds(tmp_path: Path) -> None:
    results = study(tmp_path, Scored(gain=8.0, lost=range(20), arm="none"), seeds="3..20")
    assert len(results["seeds"]) == 3
    stopped = StudyFolder(tmp_path / "study" / "s").study()["stopped"]
    assert stopped == {"seeds": 3, "why": "the baseline has no finished trial"}


@pytest.mark.parametrize(("seeds", "kept"), [("5", 5), (5, 5), ("3..20", "3..20"), (" 3 .. 20 ", "3..20"), ("4..4", 4)])
def test_seeds_are_a_count_or_a_range(seeds: int | str, kept: int | str) -> None:
    options = StudyOptions(seeds=seeds)
    assert options.seeds == kept
    assert StudyOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options


@pytest.mark.parametrize(
    "seeds", ["many", "", "20..3", "1..5", "3..51", "3..", "-3", "3...9", 0, 1001, "3..4..5", "３"]
)
def test_other_seeds_are_refused(seeds: int | str) -> None:
    with pytest.raises(UsageError, match="range such as 3\\.\\.20"):
        seed_range(seeds)


def test_the_plan_shows_minimum_and_maximum_and_a_budget_cuts_the_maximum(tmp_path: Path) -> None:
    class Plan(Progress):
        def outlined(self, plan: Outline) -> None:
            self.outline = plan

    heard = Plan()
    run_study(tiny(tmp_path, dry_run=True, seeds="3..20"), progress=heard)
    plan = heard.outline
    assert "2 arms x 3..20 seeds = 6 to 40 trials of 1 epoch" in str(plan)
    assert plan.to_dict()["least_seconds"] < plan.to_dict()["seconds"]
    fewer = plan.within(plan._seconds(12))
    assert fewer.options.seed_range[0] == 3
    assert 3 < fewer.options.seed_range[1] <= 12
    assert fewer.cuts[-1] == f"seeds 3..20 -> {fewer.options.seeds}"
    with pytest.raises(UsageError, match="3 seeds of 1 epoch"):
        plan.within(1.0)


def test_later_looks_and_fewer_of_them_have_narrower_intervals() -> None:
    levels = [Design(3, 20, seeds).level(4, 0.95) for seeds in (3, 10, 20)]
    assert levels == sorted(levels, reverse=True)
    assert 0.95 < Design(3, 4, 4).level(4, 0.95) < levels[-1]
    assert Design(5, 5, 5).level(4, 0.95) == 0.95
