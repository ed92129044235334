"""Results in storage that all machines share: written once, found again, and brought to another machine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from foveate import storage
from foveate.errors import UsageError
from foveate.experiment.data import content_digest, open_study_data
from foveate.experiment.run_folder import RECORDS
from foveate.files import read_json
from foveate.storage import open_storage
from foveate.studies import ray_engine, remote_trial, run, shared_results
from foveate.studies.costs import measure_costs
from foveate.studies.engine import Event
from foveate.studies.remote_trial import Contents, Expected, read_folder, run_remote, write_folder
from foveate.studies.run import run_study
from foveate.studies.shared_results import SharedResults, local_folder, share
from foveate.studies.trial import Trial
from object_store import SECRET, s3
from studies.tiny import tiny, wait_for
from work import HANG

TIMES = ("seconds", "history")


@pytest.fixture(autouse=True)
def _brief_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "measure_costs", partial(measure_costs, seconds=0.0))


@pytest.fixture
def shared(tmp_path: Path) -> SharedResults:
    open_storage(str(tmp_path / "shared")).write("study.json", b'{"id": "one"}')
    return SharedResults(str(tmp_path / "shared"), "one")


def trial(status: str = "done", weights: bytes = b"w", **more: Any) -> Contents:
    return {"trial.json": json.dumps({"status": status, **more}).encode(), "weights/best": weights, "history.csv": b"h"}


def test_a_trial_comes_back_as_it_was_written(shared: SharedResults) -> None:
    assert not shared.has("se__seed0")
    shared.put("se__seed0", trial())
    assert shared.has("se__seed0")
    assert shared.get("se__seed0") == trial()
    with pytest.raises(UsageError, match="FileNotFoundError"):
        shared.get("eca__seed0")


def test_the_first_result_stays_whole_and_an_error_does_not(shared: SharedResults) -> None:
    shared.put("a", trial("failed", b"none"))
    assert not shared.has("a")
    shared.put("a", trial(weights=b"first", number=1))
    shared.put("a", trial(weights=b"second", number=2))
    shared.put("a", trial("failed", b"third"))
    assert shared.get("a") == trial(weights=b"first", number=1)
    shared.put("a", trial(weights=b"first", number=1))  # the same again
    assert shared.get("a") == trial(weights=b"first", number=1)


def test_trial_json_is_written_last(shared: SharedResults, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __getattr__(self, name: str) -> Any:
            return getattr(open_storage(shared.place), name)

        def create(self, name: str, content: bytes) -> bool:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared_results, "open_storage", lambda place: Full())
    with pytest.raises(OSError, match="No space"):
        shared.put("a", trial())
    assert len(open_storage(shared.place).names("trials/a")) == 2
    assert not shared.has("a")


def test_trials_go_both_ways_and_errors_go_nowhere(shared: SharedResults, tmp_path: Path) -> None:
    ours = tmp_path / "study"
    write_folder(ours / "trials" / "here", trial(number=1), last="trial.json")
    write_folder(ours / "trials" / "again", trial("failed"), last="trial.json")
    write_folder(ours / "trials" / "broken", trial("failed"), last="trial.json")
    shared.put("there", trial(number=2))
    shared.put("again", trial("diverged", number=3))
    shared.put("lost", trial("failed"))
    shared.exchange(ours, ["here", "again", "broken", "there", "lost", "not yet"])
    assert shared.get("here") == trial(number=1)
    assert read_json(ours / "trials" / "there" / "trial.json")["number"] == 2
    assert read_json(ours / "trials" / "again" / "trial.json")["number"] == 3
    assert not shared.has("broken")
    assert not (ours / "trials" / "lost").exists()


def test_no_file_of_a_failed_run_stays_beside_those_of_another(shared: SharedResults, tmp_path: Path) -> None:
    home = tmp_path / "study" / "trials" / "a"
    write_folder(home, {**trial("failed"), "maps.npz": b"of the failed run"}, last="trial.json")
    shared.put("a", trial())
    shared.exchange(tmp_path / "study", ["a"])
    assert read_folder(home) == trial()


@pytest.mark.parametrize("name", ["..", ".", "b", "../../outside"])
def test_only_trials_of_the_study_are_taken(
    shared: SharedResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In an object store, names may have parts that lead out of a folder."""
    monkeypatch.setitem(storage.OBJECT_STORES, "memory", "fsspec")
    place = f"memory://{tmp_path.name}"
    monkeypatch.setattr(type(open_storage(place)), "names", lambda self, folder: [f"{name}/trial.json"])
    monkeypatch.setattr(type(open_storage(place)), "read", lambda self, file: trial()["trial.json"])
    ours = tmp_path / "study"
    ours.mkdir()
    SharedResults(place, "one").exchange(ours, ["a"])
    assert not list(ours.rglob("*"))


def test_a_file_that_vanished_is_not_empty(shared: SharedResults, monkeypatch: pytest.MonkeyPatch) -> None:
    shared.put("a", {**trial(), "empty": b""})
    assert shared.get("a")["empty"] == b""
    opened = open_storage(shared.place)
    monkeypatch.setattr(type(opened), "names", lambda self, folder: ["gone"])
    with pytest.raises(UsageError, match=r"FileNotFoundError: .*gone"):
        shared.get("a")


def test_two_studies_that_begin_at_once_do_not_mix_their_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, studies = str(tmp_path / "shared"), {}
    for study in ("one", "two"):
        records = {name: f"{name} of {study}".encode() for name in RECORDS}
        studies[study] = {**records, "study.json": json.dumps({"id": study}).encode()}
        write_folder(tmp_path / study, studies[study], last="study.json")
    write = type(open_storage(place)).write

    def too_late(self: Any, name: str, content: bytes) -> None:
        """Let the other study begin between the look at the place and the first record."""
        monkeypatch.undo()
        share(place, tmp_path / "two", [])
        write(self, name, content)

    monkeypatch.setattr(type(open_storage(place)), "write", too_late)
    with pytest.raises(UsageError, match="another study"):
        share(place, tmp_path / "one", [])
    folder = local_folder(place, tmp_path / "elsewhere", "study")
    assert folder is not None
    assert read_folder(folder) == studies["two"]


def test_a_node_without_the_storage_is_refused(shared: SharedResults, tmp_path: Path) -> None:
    shared.require_here()
    with pytest.raises(UsageError, match="an empty place"):
        SharedResults(str(tmp_path / "not mounted"), "one").require_here()
    with pytest.raises(UsageError, match="another study"):
        SharedResults(shared.place, "two").require_here()


class Remote:
    """An engine that runs trials as nodes do, in this process."""

    def __init__(self, shared: SharedResults | None = None, stop_after: int = 99, lost: Sequence[int] = ()):
        self.shared, self.stop_after, self.lost, self.trained = shared, stop_after, lost, 0

    def run(self, trials: Sequence[Trial], on_event: Callable[[Event], None]) -> None:
        assert self.shared is not None
        for number, one in enumerate(trials):
            if number == self.stop_after:
                raise KeyboardInterrupt
            expected = Expected.here(content_digest(open_study_data(one.options), one.options))
            *events, last = run_remote(one.to_dict(), expected, {}, self.shared)
            self.trained += any(event["event"] == "epoch" for event in events)
            assert last == {"event": "done"}
            if number in self.lost:  # the driver does not hear of it
                continue
            write_folder(one.folder, self.shared.get(one.folder.name), last="trial.json")
            on_event(Event("done", one, status="done"))


def connect_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give studies on a cluster one slot, of no cluster."""
    monkeypatch.setattr(ray_engine, "connected", lambda address: nullcontext())
    monkeypatch.setattr(ray_engine, "slots", lambda options: [1])


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Callable[[Remote], Remote]:
    """Let studies on a cluster run on an engine of this process."""
    connect_in_this_process(monkeypatch)

    def use(engine: Remote) -> Remote:
        def made(options: Any, content: str, shared: SharedResults | None) -> Remote:
            engine.shared = shared
            return engine

        monkeypatch.setattr(ray_engine, "RayEngine", made)
        return engine

    return use


def options(project: Path, place: str, **changes: Any) -> Any:
    return tiny(project, seeds=2, engine="ray", jobs=None, results=place, **changes)


def trials(folder: Path) -> dict[str, Any]:
    found = {path.parent.name: read_json(path) for path in (folder / "trials").glob("*/trial.json")}
    return {name: {key: value for key, value in one.items() if key not in TIMES} for name, one in found.items()}


def test_another_machine_finishes_the_study(tmp_path: Path, engines: Callable[[Remote], Remote]) -> None:
    place = str(tmp_path / "shared")
    engines(Remote(stop_after=3, lost=[1]))
    with pytest.raises(KeyboardInterrupt):
        run_study(options(tmp_path / "first", place), command="foveate study")
    (begun,) = (tmp_path / "first" / "study").iterdir()
    assert len(trials(begun)) == 2
    second = engines(Remote())
    folder = run_study(options(tmp_path / "second", place, resume=True), command="foveate study")
    assert folder is not None
    assert second.trained == 1  # of four: two were known, and one was found in the storage
    assert len(trials(folder)) == 4
    assert {name: trials(folder)[name] for name in trials(begun)} == trials(begun)
    for path in folder.glob("trials/*/weights/best.safetensors"):
        assert len(path.read_bytes()) > 1000
    again = engines(Remote())
    assert run_study(options(tmp_path / "second", place, resume=True), command="foveate study") == folder
    assert again.trained == 0
    with pytest.raises(UsageError, match="an empty place for the results"):
        run_study(options(tmp_path / "third", place), command="foveate study")
    assert not (tmp_path / "third").exists()
    with pytest.raises(UsageError, match="epochs: 1 -> 2"):
        run_study(options(tmp_path / "fourth", place, resume=True, epochs=2), command="foveate study")


def run_on_a_node(project: Path, shared: SharedResults) -> list[dict[str, Any]]:
    settled = options(project, shared.place).resolve()
    one = Trial(project / "se__seed0", settled, run.choose_arms(settled)[0], 0, {}, threads=1, keeps_maps=False)
    expected = Expected.here(content_digest(open_study_data(settled), settled))
    return list(run_remote(one.to_dict(), expected, {}, shared))


def test_what_cannot_be_written_comes_back(shared: SharedResults, tmp_path: Path) -> None:
    (tmp_path / "shared" / "trials").write_bytes(b"a file where a folder should be")
    *_, last = run_on_a_node(tmp_path, shared)
    assert "FileExistsError" in last["why"] or "NotADirectoryError" in last["why"]
    assert json.loads(last["files"]["trial.json"])["status"] == "done"


@pytest.mark.parametrize("silent", ["study.json", "trials/se__seed0/trial.json"])
@pytest.mark.parametrize("answers", [1, 99])
def test_storage_that_does_not_answer_a_node_stops_no_trial(
    shared: SharedResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str, answers: int
) -> None:
    """It may answer again when the trial has ended; else the files come back with the reason."""
    asked: list[str] = []

    class Silent:
        def __getattr__(self, name: str) -> Any:
            return getattr(open_storage(shared.place), name)

        def read(self, name: str) -> bytes | None:
            if name == silent and len(asked) < answers:
                asked.append(name)
                raise TimeoutError("no answer")
            return open_storage(shared.place).read(name)

        def create(self, name: str, content: bytes) -> bool:
            if answers > 1:
                raise TimeoutError("no answer")
            return open_storage(shared.place).create(name, content)

    monkeypatch.setattr(shared_results, "open_storage", lambda place: Silent())
    first, *_, last = run_on_a_node(tmp_path, shared)
    assert asked
    assert first == {"event": "started"}
    if answers == 1:
        assert last == {"event": "done"}
        assert shared.has("se__seed0")
    else:
        assert last["why"].startswith("TimeoutError on ")
        assert json.loads(last["files"]["trial.json"])["status"] == "done"


def test_a_mount_that_is_lost_while_a_trial_runs(
    shared: SharedResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = remote_trial._train

    def lost(one: Trial) -> Iterator[dict[str, Any]]:
        yield from train(one)
        (tmp_path / "shared" / "study.json").unlink()

    monkeypatch.setattr(remote_trial, "_train", lost)
    *_, last = run_on_a_node(tmp_path, shared)
    assert "an empty place" in last["why"]
    assert "trial.json" in last["files"]
    assert not list((tmp_path / "shared").iterdir())


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3(monkeypatch) as url:
        yield url


DRIVER = """
import json
from foveate.studies import run
from foveate.experiment.options import StudyOptions
run.measure_costs = lambda models, shape, **_: {{name: None for name in models}}
run.run_study(StudyOptions.from_dict(json.loads({values!r})), command="foveate study")
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_killed_driver_and_another_machine_with_an_object_store(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is that of an uninterrupted study on this machine, and no file or line has the secret."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr("foveate.studies.outline.cores", lambda: 1)
    whole = run_study(tiny(tmp_path / "local", seeds=2), command="foveate study")
    assert whole is not None
    values = json.dumps(options(tmp_path / "first", bucket).to_dict())
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen([sys.executable, "-c", DRIVER.format(values=values)], stdout=log, stderr=log)
    started = wait_for(
        lambda: bool(list(tmp_path.glob("first/study/*/trials/*/trial.json"))) or process.poll() is not None
    )
    assert started
    assert process.poll() is None, (tmp_path / "log").read_text()
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(HANG)
    psutil.wait_procs(children, HANG)
    (begun,) = (tmp_path / "first" / "study").iterdir()
    kept = trials(begun)
    assert len(kept) >= 1
    folder = run_study(options(tmp_path / "second", bucket, resume=True), command="foveate study")
    assert folder is not None
    assert trials(folder) == trials(whole)
    for name in kept:
        first, second = (read_json(place / "trials" / name / "trial.json") for place in (begun, folder))
        assert first == second  # with its times: it did not run again
    log.close()
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    stored = open_storage(bucket)
    assert not [name for name in stored.names("") if SECRET.encode() in (stored.read(name) or b"")]
