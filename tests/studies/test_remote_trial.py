"""A trial as a node of a cluster runs it, without a cluster."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate import files
from foveate.errors import UsageError
from foveate.experiment.arms import Arm
from foveate.experiment.data import content_digest, open_study_data
from foveate.experiment.options import Resolved, located, moved
from foveate.files import read_json
from foveate.studies import remote_trial
from foveate.studies.remote_trial import Contents, Expected, Parcel, read_folder, run_remote, unpacked, write_folder
from foveate.studies.trial import Trial, run_trial
from studies.tiny import tiny

NET = "from torch import nn\n\n\ndef make(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(3072, classes))\n"


MECHANISM = """
from dataclasses import dataclass

from foveate.parts import Conv, Gate
from foveate.spec import Mechanism


@dataclass(frozen=True)
class Mine(Mechanism):
    name = "mine"

    def parts(self, channels):
        return {"conv": Conv(channels, channels), "gate": Gate("channel")}

    def forward(self, F, p, x):
        return p.gate(x, p.conv(F.mean(x, F.hw)))
"""


class Packed(Parcel):
    """A parcel in memory that counts how often it is opened."""

    def __init__(self, place: Path, digest: str = "abc"):
        self.digest, self.opened, self._contents = digest, 0, read_folder(place)

    def contents(self) -> Contents:
        self.opened += 1
        return self._contents


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(files.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def photos(folder: Path) -> Path:
    draw = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for name in ("cat", "dog"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 255, (40, 36, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")
    return folder


def one(tmp_path: Path, **changes: Any) -> tuple[Trial, Expected]:
    options = Resolved.from_dict(located(tiny(tmp_path / "runs", **changes).resolve().to_dict()))
    expected = Expected.here(content_digest(open_study_data(options), options))
    arm = Arm("none")
    return Trial(tmp_path / "trial", options, arm, 0, {}, threads=1, keeps_maps=False), expected


def test_its_events_and_files_are_those_of_a_trial_on_this_machine(tmp_path: Path) -> None:
    trial, expected = one(tmp_path, epochs=2)
    local = run_trial(trial)
    *events, last = run_remote(trial.to_dict(), expected, {})
    assert [event["event"] for event in events] == ["started", "epoch", "epoch"]
    assert [event["row"]["epoch"] for event in events[1:]] == [1, 2]
    write_folder(tmp_path / "remote", last["files"], last="trial.json")
    assert read_folder(tmp_path / "remote").keys() == read_folder(trial.folder).keys()
    remote = read_json(tmp_path / "remote" / "trial.json")
    assert {**remote, "seconds": 0, "history": 0} == {**local, "seconds": 0, "history": 0}
    assert (tmp_path / "remote" / "weights" / "best.safetensors").read_bytes() == (
        trial.folder / "weights" / "best.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("name", ["python", "torch", "foveate"])
def test_other_versions_are_refused_before_anything_is_opened(tmp_path: Path, name: str) -> None:
    trial, expected = one(tmp_path)
    other = Expected({**expected.versions, name: "0.0"}, expected.content)
    (event,) = run_remote({**trial.to_dict(), "folder": str(tmp_path / "absent")}, other, {})
    assert event["event"] == "refused"
    assert f"{name} {expected.versions[name]}, not 0.0 on " in event["received"]


def test_other_data_are_refused(tmp_path: Path) -> None:
    data = photos(tmp_path / "photos")
    trial, expected = one(tmp_path, data=data, model="resnet8", imgsz=32, batch=4)
    open_study_data.__globals__["_open"].cache_clear()
    Image.fromarray(np.zeros((40, 36, 3), np.uint8)).save(data / "train" / "cat" / "0.png")
    (event,) = run_remote(trial.to_dict(), expected, {})
    assert event["event"] == "refused"
    assert event["received"].startswith("other content on ")


def test_absent_data_and_code_are_unpacked_once(tmp_path: Path, cache: Path) -> None:
    data, net = photos(tmp_path / "photos"), tmp_path / "net.py"
    net.write_text(NET)
    trial, expected = one(tmp_path, data=data, model=f"{net}:make", imgsz=32, batch=4, attention=(), control=True)
    parcels = {str(data): Packed(data, "of-data"), str(net): Packed(net, "of-net")}
    data.rename(tmp_path / "elsewhere")
    net.unlink()
    for _ in range(2):
        *_, last = run_remote(trial.to_dict(), expected, parcels)
        assert last["event"] == "done", last
        assert b'"status": "done"' in last["files"]["trial.json"]
    assert [parcel.opened for parcel in parcels.values()] == [1, 1]
    assert read_folder(cache / "of-data" / "photos") == read_folder(tmp_path / "elsewhere")


def test_an_absent_mechanism_is_unpacked_and_draws_the_same_weights(tmp_path: Path, cache: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(MECHANISM)
    trial, expected = one(tmp_path, attention=(f"{mine}:Mine",))
    trial = replace(trial, arm=Arm(f"{mine}:Mine", "residual", "paper"))
    local = run_trial(trial)
    assert local["status"] == "done", local["error"]
    packed = Packed(mine)
    mine.unlink()
    *_, last = run_remote(trial.to_dict(), expected, {str(mine): packed})
    remote = json.loads(last["files"]["trial.json"])
    assert remote["arm"] == local["arm"]
    assert remote["test_loss"] == local["test_loss"]  # the file of the weights names the place of the mechanism


def test_several_trials_of_a_node_may_unpack_at_the_same_time(tmp_path: Path, cache: Path) -> None:
    data = photos(tmp_path / "photos")
    begin, found = threading.Barrier(4), []

    class Slow(Packed):
        def contents(self) -> Contents:
            begin.wait(10)  # all four found the cache empty
            return super().contents()

    slow = Slow(data)
    threads = [threading.Thread(target=lambda: found.append(unpacked(str(data), slow))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / "abc" / "photos"] * 4
    assert read_folder(cache / "abc" / "photos") == read_folder(data)
    assert [path.name for path in cache.iterdir()] == ["abc"]


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "a\\..\\out", "c:out", "C:/out"])
def test_names_that_leave_the_cache_are_refused(tmp_path: Path, cache: Path, name: str) -> None:
    class Evil(Parcel):
        digest = "evil"

        def contents(self) -> Contents:
            return {"good": b"", name: b"evil"}

    with pytest.raises(UsageError, match="names inside the folder"):
        unpacked(str(tmp_path / "data"), Evil())
    assert list(cache.iterdir()) == []


def test_the_first_result_of_a_trial_stays(tmp_path: Path) -> None:
    write_folder(tmp_path / "t", {"trial.json": b"1", "weights/w": b"1"}, last="trial.json")
    write_folder(tmp_path / "t", {"trial.json": b"2", "weights/w": b"2"}, last="trial.json")
    assert read_folder(tmp_path / "t") == {"trial.json": b"1", "weights/w": b"1"}


def test_the_last_file_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(remote_trial.files, "write_bytes", lambda path, content: written.append(path.name))
    write_folder(tmp_path / "t", {"a": b"", "trial.json": b"", "z": b""}, last="trial.json")
    assert written == ["a", "z", "trial.json"]


def test_every_place_moves(tmp_path: Path) -> None:
    options = replace(
        tiny(tmp_path, data=Path("/d"), weights=Path("/w.safetensors"), model="/n.py:make").resolve(),
        attention=("/m.py:Mine-paper:k=3", "se"),
    )
    new = moved(options, {"/d": "/D", "/w.safetensors": "/W", "/n.py": "/N.py", "/m.py": "/M.py"})
    assert (new.data, new.weights, new.model) == (Path("/D"), Path("/W"), "/N.py:make")
    assert new.attention == ("/M.py:Mine-paper:k=3", "se")
    assert moved(options, {}) == options
