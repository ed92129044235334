"""Two nodes that train one model together, as `foveate launch` starts them."""

import csv
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

from foveate.experiment.launching import LOOPBACK, rendezvous
from namespaces import Machines, two_machines
from work import HANG

TRAIN = (
    *("train", "--attention", "se", "--model", "resnet8", "--start", "paper", "--optimizer", "sgd", "--lr", "0.05"),
    *("--train-count", "64", "--val-count", "20", "--test-count", "20", "--canvas", "24", "--fragments", "2"),
)


class Nodes:
    """Two nodes that train together, each in a folder of its own: two network namespaces, or two processes."""

    train: Sequence[str] = TRAIN
    machines: Machines | None = None

    def __init__(self, folder: Path, prefixes: Sequence[Sequence[str]], host: str, port: int):
        self.folder, self.prefixes, self.host, self.port = folder, prefixes, host, port

    def start(self, *options: str, timeout: float = HANG) -> list["subprocess.Popen[str]"]:
        started, here = [], self.folder / "here"
        here.mkdir(exist_ok=True)
        (here / "json.py").write_text("raise SystemExit('imported from the current folder')")
        for rank, prefix in enumerate(self.prefixes):
            where = ("--nodes", "2", "--node-rank", str(rank), "--host", self.host, "--port", str(self.port))
            command = [
                sys.executable,
                "-P",
                "-m",
                "foveate",
                "launch",
                *where,
                "--timeout",
                str(timeout),
                "--",
                *self.train,
            ]
            place = ("--project", str(self.folder / str(rank)), "--name", "run")
            paths = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
            started.append(
                subprocess.Popen(
                    [*prefix, *command, *options, *place],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    cwd=here,
                    env={**os.environ, **paths},
                )
            )
        return started

    def run_to_end(self, *options: str) -> list[str]:
        """Train without a fault, and return what each node said."""
        started = self.start(*options)
        said = [process.communicate(timeout=HANG)[0] for process in started]
        assert [process.returncode for process in started] == [0, 0], said
        return said

    @property
    def run(self) -> Path:
        return self.folder / "0" / "train" / "run"


@contextmanager
def two_nodes(kind: str, folder: Path) -> Iterator[Nodes]:
    """Yield two nodes as `processes` or `namespaces`; skip the test where the machine allows no namespaces."""
    if kind == "processes":
        yield Nodes(folder, [(), ()], LOOPBACK, rendezvous(1, 0, None, None, None, {"lo": [LOOPBACK]}).port)
        return
    with ExitStack() as made:
        try:
            machines = made.enter_context(two_machines())
        except OSError as error:
            pytest.skip(str(error))
        inside = [("ip", "netns", "exec", name) for name in machines.names]
        nodes = Nodes(folder, inside, machines.addresses[0], 29500)
        nodes.machines = machines
        yield nodes


def steps(code: str, folder: Path, count: int, norms: str) -> list[dict[str, torch.Tensor]]:
    """Return the weights of each of `count` processes that run the code."""
    (folder / "store").unlink(missing_ok=True)
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    commands = [[sys.executable, "-c", code, str(rank), str(count), str(folder), norms] for rank in range(count)]
    started = [subprocess.Popen(command, env=paths, stderr=subprocess.PIPE, text=True) for command in commands]
    errors = [process.communicate(timeout=HANG)[1] for process in started]
    assert [process.returncode for process in started] == [0] * count, errors
    return [torch.load(folder / f"{count}-{rank}.pt", weights_only=True) for rank in range(count)]


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "results.csv").open() as file:
        return list(csv.DictReader(file))
