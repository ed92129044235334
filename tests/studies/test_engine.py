import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from foveate.experiment.arms import Arm
from foveate.studies import engine
from foveate.studies.engine import Event, LocalEngine
from foveate.studies.study_folder import read_json
from foveate.studies.trial import Trial
from studies.tiny import pretending, tiny

ARMS = [Arm("none"), Arm("se", "residual", "identity")]


def trials(project: Path, seeds: int = 2) -> list[Trial]:
    options = tiny(project).resolve()
    pairs = itertools.product(range(seeds), ARMS)
    return [
        Trial(project / f"{arm.slug}__seed{seed}", options, arm, seed, {"residual": {16: 1}}, 1, seed == 0)
        for seed, arm in pairs
    ]


def run(project: Path, monkeypatch: pytest.MonkeyPatch, *, jobs: int = 2, seeds: int = 2, **boot: Any) -> list[Event]:
    monkeypatch.setattr(engine, "_BOOT", pretending(**boot))
    events: list[Event] = []
    with no_process_left():
        LocalEngine(jobs).run(trials(project, seeds), events.append)
    return events


@contextmanager
def no_process_left() -> Iterator[None]:
    """Check that no process of ours is left that was not there before; other tests may have a browser."""
    before = _python_processes()
    yield
    assert _python_processes() <= before


def _python_processes() -> set[psutil.Process]:
    return {child for child in psutil.Process().children(recursive=True) if "python" in child.name()}


def ends(events: list[Event]) -> dict[tuple[str, int], str | None]:
    return {(event.trial.arm.slug, event.trial.seed): event.status for event in events if event.kind == "done"}


def test_trials_are_the_same_after_json(tmp_path: Path) -> None:
    trial = trials(tmp_path)[1]
    assert Trial.from_dict(trial.to_dict()) == trial


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_trial_is_run_and_reported_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    events = run(tmp_path, monkeypatch, jobs=jobs, before="print('noise from a library')")
    assert set(ends(events).values()) == {"done"}
    for trial in trials(tmp_path):
        kinds = [event.kind for event in events if event.trial == trial]
        assert kinds == ["started", "epoch", "epoch", "done"]
        assert read_json(trial.folder / "trial.json")["status"] == "done"
    assert {event.row["epoch"] for event in events if event.row} == {1, 2}


def test_no_module_comes_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the json.py of the user')")
    monkeypatch.chdir(tmp_path)
    assert set(ends(run(tmp_path, monkeypatch, jobs=1, seeds=1)).values()) == {"done"}


@pytest.mark.parametrize(("jobs", "gpus"), [(2, ("5", "GPU-7")), (3, ("0", "1")), (2, ())], ids=str)
def test_each_process_sees_its_own_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int, gpus: tuple[str, ...]
) -> None:
    """Each process writes the GPU that it sees into a file."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "all")
    wrote = "open(str(trial.folder) + f'.{os.getpid()}', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    monkeypatch.setattr(engine, "_BOOT", pretending(before=f"os.makedirs(trial.folder, exist_ok=True); {wrote}"))
    LocalEngine(jobs, gpus).run(trials(tmp_path), lambda event: None)
    seen = {path.suffix: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    assert len(seen) <= jobs
    assert set(seen.values()) == set(gpus or ("all",))


@pytest.mark.parametrize(
    ("crash", "part"),
    [
        ("os.kill(os.getpid(), 9)", "memory"),
        ("print('the last words', file=sys.stderr); os._exit(3)", "ended with code 3: the last words"),
    ],
)
def test_a_process_that_dies_fails_only_its_own_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str, part: str
) -> None:
    events = run(
        tmp_path, monkeypatch, before=f"exec({crash!r}) if (trial.seed, trial.arm.mechanism) == (0, 'se') else None"
    )
    statuses = ends(events)
    assert statuses.pop((ARMS[1].slug, 0)) == "failed"
    assert set(statuses.values()) == {"done"}
    trial = read_json(tmp_path / f"{ARMS[1].slug}__seed0" / "trial.json")
    assert trial["status"] == "failed"
    assert part in trial["error"]


def test_a_trial_that_was_written_before_its_process_died_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = run(tmp_path, monkeypatch, jobs=1, seeds=1, after="os._exit(1)")
    assert ends(events) == {(arm.slug, 0): "done" for arm in ARMS}


def test_an_error_in_the_listener_stops_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_BOOT", pretending(pause=30))

    def refuse(event: Event) -> None:
        raise KeyboardInterrupt

    with no_process_left(), pytest.raises(KeyboardInterrupt):
        LocalEngine(2).run(trials(tmp_path), refuse)


def test_ctrl_c_of_the_terminal_does_not_reach_the_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = "os.kill(os.getpid(), __import__('signal').SIGINT); assert os.getpgid(0) == os.getpid()"
    assert set(ends(run(tmp_path, monkeypatch, jobs=1, seeds=1, before=before)).values()) == {"done"}
