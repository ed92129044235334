"""RELIABILITY row 27: a study of many trials leaves memory, descriptors and processes flat."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import pytest

from foveate.studies import engine, run
from foveate.studies.run import run_study
from studies.test_engine import no_process_left
from studies.test_sequential import Scored
from studies.tiny import pretending, tiny

MIB = 2**20


class Watch(run.Progress):
    """Measures this process and the processes of the trials at the end of each trial."""

    def __init__(self) -> None:
        self.own: list[tuple[int, int]] = []
        self.workers: list[dict[int, tuple[int, int]]] = []

    def trial_done(self, slug: str, seed: int, status: str, trial: dict[str, Any]) -> None:
        assert status == "done"
        this = psutil.Process()
        self.own.append(measured(this))
        self.workers.append({child.pid: measured(child) for child in this.children() if "python" in child.name()})


def measured(process: psutil.Process) -> tuple[int, int]:
    """Return the bytes and the descriptors of a process; one that has just ended has none."""
    try:
        return process.memory_info().rss, process.num_fds()
    except psutil.Error:
        return 0, 0


def watched(project: Path, monkeypatch: pytest.MonkeyPatch, seeds: int, **changes: Any) -> Watch:
    """Run a study of two arms, in which latencies are invented."""
    monkeypatch.setattr(run, "measure_costs", lambda models, shape, **_: dict.fromkeys(models))
    watch = Watch()
    engine_of_it = changes.pop("engine", None)
    with no_process_left():
        run_study(tiny(project, seeds=seeds, **changes), engine=engine_of_it, progress=watch, command="foveate study")
    assert len(watch.own) == 2 * seeds
    return watch


def flat(values: Sequence[tuple[int, int]]) -> bool:
    """Return whether the last third has no more descriptors, and hardly more memory, than the middle third.

    Descriptors by the median: a process may be measured while it writes a file.
    """
    third = len(values) // 3
    middle, last = values[third : 2 * third], values[2 * third :]
    more = max(size for size, _ in last) - max(size for size, _ in middle)
    return more < 8 * MIB and median(count for _, count in last) <= median(count for _, count in middle)


@pytest.mark.reliability(27)
def test_the_process_of_a_study_stays_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Any) -> None:
    monkeypatch.setattr("foveate.studies.outline._step_seconds", lambda *_: 0.01)
    watch = watched(tmp_path, monkeypatch, 10, engine=Scored(1.0))
    assert flat(watch.own)
    tried(20)


@pytest.mark.slow
@pytest.mark.reliability(27)
@pytest.mark.parametrize("trains", [False, True], ids=["pretends", "trains"])
def test_300_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tried: Any, trains: bool) -> None:
    if not trains:
        monkeypatch.setattr(engine, "_BOOT", pretending())
    watch = watched(tmp_path, monkeypatch, 150, jobs=2)
    assert flat(watch.own)
    assert len({pid for those in watch.workers for pid in those}) == 2, "a process was replaced"
    for pid in watch.workers[len(watch.workers) // 2]:
        assert flat([those[pid] for those in watch.workers if those.get(pid, (0, 0))[0]])
    tried(300)


def test_growth_is_seen() -> None:
    assert flat([(100 * MIB, 9)] * 9)
    assert not flat([(k * 10 * MIB, 9) for k in range(9)])
    assert not flat([(100 * MIB, k) for k in range(9)])
