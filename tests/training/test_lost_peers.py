"""Several processes train one model, and one of them is killed, or the link between them is cut."""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.launcher import api

from foveate.experiment import launching
from foveate.files import read_json
from foveate.training import FitOptions, peers
from namespaces import Machines
from studies.tiny import wait_for
from training.two_nodes import Nodes, rows, two_nodes
from work import HANG

EPOCHS = 60  # of about 0.1 seconds
OPTIONS = ("--batch", "8", "--epochs", str(EPOCHS))
TIMES = ("seconds", "waiting")
GLOO = "[/gloo/transport/tcp/pair.cc:1] Timed out waiting 20000ms for recv operation to complete"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let this process believe that it was launched; return what it asks of torch, and who is `lost`."""
    seen: dict[str, Any] = {"lost": ""}

    class Peers:
        def __init__(self, seconds: float):
            seen["seconds"] = seconds

        def lost(self) -> str:
            return seen["lost"]

        def end(self) -> None:
            seen["ended"] = True

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(peers.TIMEOUT, "20")
    monkeypatch.setattr(peers, "_Peers", Peers)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: seen.update(timeout=timeout))
    return seen


@pytest.mark.parametrize(
    ("lost", "error", "told"),
    [
        ("rank 1 (process 7 on b)", RuntimeError(GLOO), "none of rank 1 .process 7 on b.: .*20000ms"),
        ("", RuntimeError(GLOO), "none in time, but all of them run: .*20000ms"),
        ("", RuntimeError("Application timeout caused pair closure"), "none in time, but all of them run"),
        ("", dist.DistBackendError("NCCL watchdog timeout"), "none in time, but all of them run"),
        ("", RuntimeError("[/gloo/x.cc:1] Connection closed by peer"), "an error, but all of them run"),
    ],
)
def test_an_exchange_that_fails(alone: dict[str, Any], lost: str, error: RuntimeError, told: str) -> None:
    alone["lost"] = lost
    with (
        pytest.raises(peers.PeerLost, match=told) as raised,
        peers.joined(FitOptions(strategy="ddp", devices=2, device="cpu")),
    ):
        raise error
    assert raised.value.expected == "an answer of all 2 processes within 20 seconds"
    assert "--resume" in raised.value.do
    assert alone["timeout"].total_seconds() == alone["seconds"] == 20
    assert alone["ended"]


def test_an_error_of_the_training_itself_stays(alone: dict[str, Any]) -> None:
    with (
        pytest.raises(RuntimeError, match="mat1 and mat2"),
        peers.joined(FitOptions(strategy="ddp", devices=2, device="cpu")),
    ):
        raise RuntimeError("mat1 and mat2")


@pytest.mark.parametrize(
    ("number", "wanted"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, InterruptedError), (signal.SIGHUP, KeyboardInterrupt)],
)
def test_a_signal_ends_a_launch_as_it_ends_other_commands(
    number: signal.Signals, wanted: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torchrun answers four signals itself; those that were answered before are answered as before."""

    def stopped(*_: Any) -> None:
        raise SignalException("stopped", number)

    def answer(*_: Any) -> None:
        raise InterruptedError

    monkeypatch.setattr(api, "elastic_launch", lambda *_: stopped)
    meeting = launching.Rendezvous("127.0.0.1", 29500, "127.0.0.1", "lo")
    for name, value in meeting.environment(1, 20).items():  # which `launch` sets, and this restores
        monkeypatch.setenv(name, value)
    before = signal.signal(signal.SIGTERM, answer), signal.signal(signal.SIGHUP, stopped)
    try:
        with pytest.raises(wanted):
            launching.launch([], meeting, 1, 0, 1, 20)
    finally:
        for known, old in zip((signal.SIGTERM, signal.SIGHUP), before, strict=True):
            signal.signal(known, old)


@pytest.mark.parametrize("seconds", [1, 5, 20, 60, 300, 3600])
def test_an_exchange_and_the_question_who_is_lost_take_less_than_two_time_outs(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    class Silent(queue.SimpleQueue[str]):
        def get(self, block: bool = True, timeout: float | None = None) -> str:
            waited.append(timeout or float("inf"))
            raise queue.Empty

    asked = object.__new__(peers._Peers)
    pause, asked.wait = peers.patience(seconds)
    asked.names, asked.rank, asked.count = ["rank 0 (process 7 on a)"], 1, 2
    release = threading.Event()
    monkeypatch.setattr(asked, "_ask", lambda answers: release.wait(), raising=False)
    monkeypatch.setattr(queue, "SimpleQueue", Silent)
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    assert asked.lost() == "the machine of rank 0 (process 7 on a), at 10.0.0.1"
    release.set()
    assert seconds + sum(waited) < 2 * seconds
    assert 10 * pause <= asked.wait  # one that runs beats several times


@pytest.mark.parametrize("rank", [0, 1])
def test_where_nobody_listens_nothing_is_printed(
    rank: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Torch's own store would print the frames of its code."""
    asked = object.__new__(peers._Peers)
    asked.wait, asked.names, asked.rank, asked.count = 60.0, ["rank 0"], rank, 2
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert asked.lost() == ("the machine of rank 0, at 127.0.0.1" if rank else "")
    assert capfd.readouterr() == ("", "")


@pytest.fixture(params=["processes", "namespaces"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nodes]:
    with two_nodes(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[Nodes, Machines]]:
    with two_nodes("namespaces", tmp_path) as made:
        assert made.machines is not None
        yield made, made.machines


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes learn that nothing happens to."""
    with two_nodes("processes", tmp_path_factory.mktemp("whole")) as made:
        made.run_to_end(*OPTIONS)
        return learned(made.run)


def learned(run: Path) -> dict[str, Any]:
    """Return what a run found, without its times."""
    found = read_json(run / "results.json")
    epochs = [{key: value for key, value in row.items() if key not in TIMES} for row in rows(run)]
    assert [row["epoch"] for row in epochs] == [str(epoch) for epoch in range(1, EPOCHS + 1)]
    return {
        **{key: found[key] for key in ("best_epoch", "val_score", "test_score", "test_loss", "test")},
        "epochs": epochs,
        **{f"weights of {name}": load_file(run / "weights" / f"{name}.safetensors") for name in ("best", "last")},
    }


def require_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key.startswith("weights"):
            torch.testing.assert_close(found[key], value, rtol=0, atol=0)
        else:
            assert found[key] == value


def begun(nodes: Nodes, timeout: float) -> list["subprocess.Popen[str]"]:
    """Start the training, and return when its first epoch is kept."""
    started = nodes.start(*OPTIONS, timeout=timeout)
    assert wait_for((nodes.run / "weights" / "last.ckpt").is_file)
    return started


def require_stopped(nodes: Nodes, started: list["subprocess.Popen[str]"]) -> list[str]:
    """Require that each node ended with an error and that no result was told or written; return what they said."""
    said = [process.communicate(timeout=HANG)[0] for process in started]
    for process, text in zip(started, said, strict=True):
        assert process.returncode not in (0, None), text
        assert "Test accuracy" not in text
    assert not (nodes.run / "results.json").exists()
    kept = torch.load(nodes.run / "weights" / "last.ckpt", weights_only=True)
    assert 0 < kept["epoch"] + 1 < EPOCHS
    return said


@pytest.mark.slow
@pytest.mark.reliability(30)
@pytest.mark.parametrize("which", [0, 1])
def test_a_rank_that_is_killed_is_named_and_the_run_resumes(nodes: Nodes, which: int, whole: dict[str, Any]) -> None:
    started = begun(nodes, timeout=40)
    (rank,) = (
        child
        for child in psutil.Process(started[which].pid).children(recursive=True)
        if "--strategy" in child.cmdline() and "launch" not in child.cmdline()
    )
    rank.kill()
    said = require_stopped(nodes, started)
    assert f"rank {which} (process {rank.pid} on " in said[1 - which], said
    assert f"rank {which} (process {rank.pid} on " in said[which], said
    assert "killed by signal 9" in said[which], said
    nodes.run_to_end(*OPTIONS, "--resume")
    require_same(learned(nodes.run), whole)


@pytest.mark.slow
@pytest.mark.reliability(30)
def test_a_link_that_is_cut_for_good_is_told_on_both_sides_and_the_run_resumes(
    apart: tuple[Nodes, Machines], whole: dict[str, Any]
) -> None:
    """Torch itself would wait for half an hour, longer than this test."""
    nodes, machines = apart
    started = begun(nodes, timeout=40)
    ranks = [
        child.pid
        for process in started
        for child in psutil.Process(process.pid).children(recursive=True)
        if "--strategy" in child.cmdline() and "launch" not in child.cmdline()
    ]
    machines.cut()
    first, second = require_stopped(nodes, started)
    assert f"received none of rank 1 (process {ranks[1]} on {os.uname().nodename})" in first, first
    assert f"received none of the machine of rank 0 (process {ranks[0]} on " in second, second
    assert f"at {machines.addresses[0]}" in second
    for text in (first, second):
        assert "expected an answer of all 2 processes within 40 seconds" in text
        assert "--resume continues" in text
        assert "frame #0" not in text
    assert wait_for(lambda: not any(machines.processes(which) for which in (0, 1)))
    machines.join()
    nodes.run_to_end(*OPTIONS, "--resume")
    require_same(learned(nodes.run), whole)


@pytest.mark.slow
@pytest.mark.reliability(16)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("asked", [(0, 1), (0,), (1,)], ids=str)
def test_a_signal_ends_all_processes_and_the_run_resumes(
    tmp_path: Path, asked: tuple[int, ...], number: signal.Signals, code: int, whole: dict[str, Any]
) -> None:
    with two_nodes("processes", tmp_path) as nodes:
        started = begun(nodes, timeout=40)
        launched = [child for one in started for child in psutil.Process(one.pid).children(recursive=True)]
        for which in asked:
            started[which].send_signal(number)
        said = require_stopped(nodes, started)
        for which, (process, text) in enumerate(zip(started, said, strict=True)):
            assert "--resume" in text or which == 1, text  # rank 0 says it for all
            if which in asked:
                assert process.returncode == code, text
            else:
                assert f"rank {1 - which} (process " in text, text
        assert not psutil.wait_procs(launched, HANG)[1], "an orphan was left"
        nodes.run_to_end(*OPTIONS, "--resume")
        require_same(learned(nodes.run), whole)


@pytest.mark.slow
@pytest.mark.reliability(30)
@pytest.mark.parametrize("seconds", [4, 25])
def test_a_link_that_is_cut_for_less_than_the_time_out_changes_nothing(
    apart: tuple[Nodes, Machines], seconds: int, whole: dict[str, Any]
) -> None:
    nodes, machines = apart
    started = begun(nodes, timeout=HANG)
    machines.cut()
    time.sleep(seconds)
    assert not (nodes.run / "results.json").exists()
    machines.join()
    said = [process.communicate(timeout=HANG)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    require_same(learned(nodes.run), whole)
