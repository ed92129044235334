"""Trials and studies that are killed, stopped, run twice or out of space end with the table of an undisturbed study."""

import csv
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from foveate import files
from foveate.studies import engine, run
from foveate.studies.run import exit_code, run_study
from foveate.studies.study_folder import StudyFolder
from studies.faults import STAGES
from studies.test_engine import no_process_left
from studies.test_sequential import Scored
from studies.tiny import pretending, results_of, start_command, tiny, wait_for
from work import HANG, counted

PAUSED = pretending(pause=0.05)


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_measured() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))
        patch.setattr("foveate.studies.outline._step_seconds", lambda *_: 0.01)
        yield


def study(project: Path, boot: str = PAUSED, **changes: Any) -> Path:
    given: dict[str, Any] = {name: changes.pop(name, None) for name in ("engine", "progress")}
    options = tiny(project, **{"seeds": 2, "jobs": 2, "name": "s", **changes})
    with pytest.MonkeyPatch.context() as patch, no_process_left():
        patch.setattr(engine, "_BOOT", boot)
        folder = run_study(options, command="foveate study", **given)
    assert folder is not None
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that was not disturbed."""
    return study(tmp_path_factory.mktemp("whole"))


def everything_is_readable(project: Path) -> None:
    for path in project.rglob("*.json"):
        json.loads(path.read_bytes())
    for path in project.rglob("*.csv"):
        assert path.read_bytes().endswith(b"\n")


def summary(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a study's table without their times."""
    with (folder / "summary.csv").open(newline="") as file:
        return [{name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def same_after_resuming(project: Path, whole: Path, **changes: Any) -> None:
    everything_is_readable(project)
    folder = study(project, resume=True, **changes)
    assert results_of(folder) == results_of(whole)
    assert summary(folder) == summary(whole)
    assert not list(folder.rglob(f"*{files.TEMPORARY}"))


def dies_once(flag: Path, point: tuple[str, str, int]) -> str:
    """Return the code of workers, of which one is killed at a point of writing."""
    die = f"faults.die_once({str(flag)!r}, {point!r})"
    return pretending(before=f"from studies import faults; trial.seed == 1 and {die}")


@pytest.mark.reliability(15)
@pytest.mark.parametrize("name", ["history.csv", "trial.json"])
@pytest.mark.parametrize(
    "stage", [pytest.param(stage, marks=() if stage == "write" else pytest.mark.slow) for stage in STAGES]
)
def test_a_trial_killed_at_a_point_fails_alone_and_runs_again(
    tmp_path: Path, whole: Path, stage: str, name: str
) -> None:
    folder = study(tmp_path, dies_once(tmp_path / "flag", (stage, name, 0)))
    assert (tmp_path / "flag").exists()
    assert exit_code(folder) == (0 if (stage, name) == ("renamed", "trial.json") else 4)
    same_after_resuming(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.reliability(15)
@pytest.mark.parametrize("seed", range(20))
def test_a_trial_killed_at_any_time_fails_alone_and_runs_again(tmp_path: Path, whole: Path, seed: int) -> None:
    class Killer(run.Progress):
        left = random.Random(seed).randrange(8)

        def epoch_done(self, slug: str, seed: int, row: dict[str, Any], epochs: int) -> None:
            self.left -= 1
            if self.left == -1:
                time.sleep(random.Random(self.left).uniform(0, 0.1))
                random.Random(seed).choice(psutil.Process().children()).kill()

    study(tmp_path, progress=Killer())
    same_after_resuming(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.reliability(15)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["best.safetensors", "maps.npz"])
def test_a_trial_that_trains_is_killed_while_it_writes(tmp_path: Path, trained: Path, stage: str, name: str) -> None:
    die = f"from studies import faults; faults.die_once({str(tmp_path / 'flag')!r}, {(stage, name, 0)!r}); from foveate"
    folder = study(tmp_path, engine._BOOT.replace("from foveate", die), **TRAINED)
    assert exit_code(folder) == 4
    same_after_resuming(tmp_path, trained, boot=engine._BOOT, **TRAINED)


TRAINED: dict[str, Any] = {"attention": ("cbam",), "seeds": 1, "jobs": 1}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that trained, and was not disturbed."""
    return study(tmp_path_factory.mktemp("trained"), engine._BOOT, **TRAINED)


class Twice(Scored):
    """Runs every trial twice, as a cluster does whose node comes back after its trial was given to another."""

    def run(self, trials: Any, on_event: Any) -> None:
        super().run([trial for trial in trials for _ in range(2)], on_event)


@pytest.mark.reliability(20, 30)
def test_a_trial_that_runs_twice_counts_once(tmp_path: Path) -> None:
    once, twice = (study(tmp_path / str(k), engine=one, seeds=3) for k, one in enumerate((Scored(1.0), Twice(1.0))))
    assert results_of(twice) == results_of(once)
    assert (twice / "summary.csv").read_bytes() == (once / "summary.csv").read_bytes()


@pytest.mark.reliability(18)
def test_a_study_whose_log_and_tables_are_torn_is_resumed(tmp_path: Path) -> None:
    folder = study(tmp_path, engine=Scored(1.0), seeds=3)
    before, tables = (
        results_of(folder),
        {name: (folder / name).read_bytes() for name in ("summary.csv", "failures.csv")},
    )
    for name in ("log.jsonl", *tables):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-7])
    assert results_of(study(tmp_path, engine=Scored(1.0), seeds=3, resume=True)) == before
    assert {name: (folder / name).read_bytes() for name in tables} == tables
    assert [line["event"] for line in files.read_lines(folder / "log.jsonl")][-2:] == ["resumed", "finished"]


@pytest.mark.slow
@pytest.mark.reliability(18)
def test_every_cut_of_the_log_and_tables_of_a_study(tmp_path: Path, whole: Path, tried: Any) -> None:
    record, cuts = StudyFolder(tmp_path), 0
    log = (whole / "log.jsonl").read_bytes()
    for cut in range(max(0, len(log) - 4096), len(log) + 1):
        (tmp_path / "log.jsonl").write_bytes(log[:cut])
        record.log("resumed")
        lines = list(files.read_lines(tmp_path / "log.jsonl"))
        assert lines[-1]["event"] == "resumed"
        assert len(lines) >= log[:cut].count(b"\n") + 1
        cuts += 1
    trials: dict[str, dict[int, Any]] = {}
    for path in (whole / "trials").glob("*/trial.json"):
        one = files.read_json(path)
        trials.setdefault(one["arm"], {})[one["seed"]] = one
    for name in ("summary.csv", "failures.csv"):
        table = (whole / name).read_bytes()
        for cut in range(max(0, len(table) - 4096), len(table) + 1):
            (tmp_path / name).write_bytes(table[:cut])
            record.write_tables(dict(sorted(trials.items())), [0, 1])
            assert len((tmp_path / name).read_bytes()) == len(table)
            cuts += 1
    tried(cuts)


@pytest.mark.slow
@pytest.mark.reliability(16)
@pytest.mark.parametrize("seed", range(50))
def test_a_signal_ends_the_command_with_its_code_and_keeps_what_was_finished(tmp_path: Path, seed: int) -> None:
    number, code = ((signal.SIGINT, 130), (signal.SIGTERM, 143))[seed % 2]
    process = start_command(tmp_path, pretending(pause=0.2), seeds=99)
    assert wait_for(lambda: (tmp_path / "study" / "s" / "study.json").exists() or process.poll() is not None)
    time.sleep(random.Random(seed).uniform(0, 3))
    children = psutil.Process(process.pid).children(recursive=True)
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("trial.json")}
    process.send_signal(number)
    said = process.communicate(timeout=HANG)[1].decode()
    assert process.returncode == code, said
    assert "--resume" in said
    assert not psutil.wait_procs(children, HANG)[1], "an orphan was left"
    everything_is_readable(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.slow
@pytest.mark.reliability(16)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_for_no_trial(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = start_command(tmp_path, pretending(pause=3600), seeds=99)
    log = tmp_path / "study" / "s" / "log.jsonl"
    assert wait_for(lambda: [line["event"] for line in files.read_lines(log)].count("trial started") == 2)
    process.send_signal(number)
    said = process.communicate(timeout=HANG)[1].decode()
    assert process.returncode == code, said
    assert [line["event"] for line in files.read_lines(log)][-1] == "stopped"


@pytest.mark.reliability(16)
def test_what_is_left_to_do_after_a_signal_is_little(tmp_path: Path) -> None:
    """Each trial is on disk when it ends, so that only tables are written: a second of work for 1,000 trials."""
    trials, left = 200, ExitStack()

    class Interrupted(Scored):
        def run(self, trials: Any, on_event: Any) -> None:
            super().run(trials, on_event)
            self.work = left.enter_context(counted())
            raise KeyboardInterrupt

    scored = Interrupted(gain=1.0)
    with pytest.raises(KeyboardInterrupt), left:
        run_study(tiny(tmp_path, seeds=trials // 2, name="s"), command="foveate study", engine=scored)
    assert scored.work.calls < 2000 * trials
    with (tmp_path / "study" / "s" / "summary.csv").open() as file:
        assert len(list(csv.DictReader(file))) == trials


@pytest.mark.slow
@pytest.mark.reliability(15)
def test_a_trial_that_is_stopped_for_20_seconds_holds_up_nothing_else(tmp_path: Path, whole: Path) -> None:
    stopped: list[psutil.Process] = []

    class Stopper(run.Progress):
        ended = 0

        def epoch_done(self, slug: str, seed: int, row: dict[str, Any], epochs: int) -> None:
            if not stopped:
                stopped.append(psutil.Process().children()[0])
                stopped[0].suspend()
                self.waker = subprocess.Popen(["sh", "-c", f"sleep 20; kill -CONT {stopped[0].pid}"])

        def trial_done(self, slug: str, seed: int, status: str, trial: dict[str, Any]) -> None:
            self.ended += stopped[0].status() == psutil.STATUS_STOPPED

    progress = Stopper()
    assert results_of(study(tmp_path, progress=progress)) == results_of(whole)
    assert progress.waker.wait() == 0
    assert progress.ended >= 2, "the other trials waited"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of which a test chooses the size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True).returncode:
        pytest.skip("needs root, to mount a file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def remounted(disk: Path, options: str) -> bool:
    """Mount it again with other options; return False while a process writes to it."""
    return subprocess.run(["mount", "-o", f"remount,{options}", disk], capture_output=True).returncode == 0


def ends_well(process: "subprocess.Popen[bytes]") -> bool:
    process.communicate(timeout=HANG)
    return process.returncode == 0


@pytest.mark.slow
@pytest.mark.reliability(17)
@pytest.mark.parametrize("kilobytes", [16, 40, 48, 56, 64, 80, 100, 120, 150, 200])
def test_a_full_disk_is_no_success_and_loses_nothing(disk: Path, tmp_path: Path, kilobytes: int) -> None:
    assert ends_well(start_command(tmp_path / "whole", PAUSED, seeds=2))
    assert remounted(disk, f"size={kilobytes}k")
    assert not ends_well(start_command(disk, PAUSED, seeds=2))
    everything_is_readable(disk)
    kept = {path: path.stat().st_mtime_ns for path in disk.rglob("trial.json")}
    kept = {path: when for path, when in kept.items() if files.read_json(path)["status"] == "done"}
    assert remounted(disk, "size=100m")
    begun = (disk / "study" / "s" / "study.json").exists()
    assert ends_well(start_command(disk, PAUSED, seeds=2, **({"resume": True} if begun else {"exist_ok": True})))
    assert results_of(disk / "study" / "s") == results_of(tmp_path / "whole" / "study" / "s")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
@pytest.mark.reliability(17)
@pytest.mark.parametrize("finished", range(3))
def test_a_read_only_disk_is_no_success(disk: Path, tmp_path: Path, finished: int) -> None:
    assert ends_well(start_command(tmp_path / "whole", PAUSED, seeds=2))
    process = start_command(disk, pretending(pause=0.3), seeds=2)
    assert wait_for(
        lambda: (disk / "study" / "s" / "study.json").exists() and len([*disk.rglob("trial.json")]) >= finished
    )
    process.kill()
    process.communicate()
    assert wait_for(lambda: remounted(disk, "ro")), "a trial did not end with its study"
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    assert not ends_well(start_command(disk, PAUSED, seeds=2, resume=True))
    assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before
    assert remounted(disk, "rw")
    assert ends_well(start_command(disk, PAUSED, seeds=2, resume=True))
    assert results_of(disk / "study" / "s") == results_of(tmp_path / "whole" / "study" / "s")
