"""RELIABILITY row 30: a study on two machines gives the table of one, whatever is killed or cut off.

The machines are two network namespaces with a Ray node each. The study runs beside the first, the head.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from filelock import FileLock

from foveate.files import read_json
from namespaces import Machines, two_machines
from studies.tiny import environment, tiny, wait_for
from work import HANG

pytestmark = pytest.mark.slow
TIMES = ("seconds", "history")
STUDY: dict[str, Any] = {"seeds": 3, "epochs": 2, "name": "s"}
LONG = {"epochs": 20}


class Cluster:
    """A Ray node on each of two machines, with a core each."""

    def __init__(self, machines: Machines, place: Path):
        self.machines, self.place = machines, place
        self.node(0, "--head", "--include-dashboard=false", "--port=6379")
        assert wait_for(lambda: self.alive() == 1, 120), "the head did not start"
        self.node(1, f"--address={machines.addresses[0]}:6379")
        assert wait_for(lambda: self.alive() == 2, 120), "the second node did not join"

    def node(self, which: int, *options: str) -> None:
        address = f"--node-ip-address={self.machines.addresses[which]}"
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", address, *options]
        with (self.place / f"node{which}.log").open("w") as log:
            self.machines.start(which, *start, env=self.environment(), stdout=log, stderr=log)

    def environment(self) -> dict[str, str]:
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "1" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
        return {**environment(), **token, "FOVEATE_CACHE": str(self.place / "cache"), "OMP_NUM_THREADS": "1"}

    def python(self, code: str, **options: Any) -> "subprocess.Popen[str]":
        """Run Python beside the head."""
        return self.machines.start(0, sys.executable, "-c", code, env=self.environment(), **options)

    def alive(self) -> int:
        """Return how many nodes the head believes to be alive."""
        code = f"""
import ray
ray.init("{self.machines.addresses[0]}:6379", logging_level="ERROR", log_to_driver=False)
print("alive", sum(node["Alive"] for node in ray.nodes()))
"""
        said = self.python(code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).communicate(timeout=HANG)[0]
        found = [line for line in said.splitlines() if line.startswith("alive ")]
        return int(found[-1].split()[1]) if found else 0

    def study(self, project: Path, **changes: Any) -> "subprocess.Popen[str]":
        """Start the study on both machines; latencies are invented."""
        address = f"{self.machines.addresses[0]}:6379"
        options = tiny(project, **{**STUDY, "engine": "ray", "jobs": None, "address": address, **changes})
        code = f"""
import json
from foveate.studies import run
from foveate.experiment.options import StudyOptions
run.measure_costs = lambda models, shape, **_: {{name: None for name in models}}
run.run_study(StudyOptions.from_dict(json.loads({json.dumps(options.to_dict())!r})), command="foveate study")
"""
        return self.python(code, stderr=subprocess.PIPE)

    def trials(self, which: int) -> list[psutil.Process]:
        """Return the processes that run a trial on one of the machines."""
        found = []
        for pid in self.machines.processes(which):
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                if "run_remote" in " ".join(process.cmdline()):
                    found.append(process)
        return found


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    pytest.importorskip("ray")
    with ExitStack() as stack:
        # Ray looks through the processes of the whole machine, and takes another test's head for its own.
        stack.enter_context(FileLock(Path(tempfile.gettempdir()) / "foveate-two-machines.lock"))
        try:
            machines = stack.enter_context(two_machines())
        except OSError as error:
            pytest.skip(str(error))
        yield Cluster(machines, tmp_path)


def trials(project: Path) -> dict[str, Any]:
    """Return what the trials of the study found, without their times."""
    found = {path.parent.name: read_json(path) for path in (project / "study" / "s" / "trials").glob("*/trial.json")}
    return {name: {key: value for key, value in trial.items() if key not in TIMES} for name, trial in found.items()}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return on_one_machine(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def long_table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return on_one_machine(tmp_path_factory.mktemp("one"), **LONG)


def on_one_machine(project: Path, **changes: Any) -> dict[str, Any]:
    """Return the trials of the study on one machine, with one thread."""
    options = json.dumps(tiny(project, **{**STUDY, **changes}).to_dict())
    code = f"""
import json
from foveate.studies import outline, run
from foveate.experiment.options import StudyOptions
outline.cores = lambda: 1
run.measure_costs = lambda models, shape, **_: {{name: None for name in models}}
run.run_study(StudyOptions.from_dict(json.loads({options!r})), command="foveate study")
"""
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
    found = trials(project)
    assert {trial["status"] for trial in found.values()} == {"done"}
    assert len(found) == 6
    return found


def ended(process: "subprocess.Popen[str]") -> str:
    said = process.communicate(timeout=HANG)[1]
    assert process.returncode == 0, said
    return said


def begun(cluster: Cluster, which: int) -> bool:
    return wait_for(lambda: bool(cluster.trials(which)), 120)


@pytest.mark.reliability(30)
def test_two_machines_give_the_table_of_one(cluster: Cluster, tmp_path: Path, table: dict[str, Any]) -> None:
    process = cluster.study(tmp_path)
    assert begun(cluster, 0)
    assert begun(cluster, 1)
    ended(process)
    assert trials(tmp_path) == table


@pytest.mark.reliability(30)
def test_a_machine_that_is_switched_off(cluster: Cluster, tmp_path: Path, table: dict[str, Any]) -> None:
    process = cluster.study(tmp_path)
    assert begun(cluster, 1)
    cluster.machines.switch_off(1)
    ended(process)
    assert trials(tmp_path) == table


@pytest.mark.reliability(30)
@pytest.mark.parametrize("which", [0, 1])
def test_a_trial_that_is_killed(cluster: Cluster, tmp_path: Path, table: dict[str, Any], which: int) -> None:
    process = cluster.study(tmp_path)
    assert begun(cluster, which)
    cluster.trials(which)[0].kill()
    ended(process)
    assert trials(tmp_path) == table


@pytest.mark.reliability(30)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=str)
def test_a_driver_that_is_killed_is_resumed(
    cluster: Cluster, tmp_path: Path, table: dict[str, Any], number: signal.Signals
) -> None:
    process = cluster.study(tmp_path)
    assert wait_for(lambda: len(trials(tmp_path)) >= 2)
    psutil.Process(process.pid).send_signal(number)  # `ip netns exec` became the study
    process.communicate(timeout=HANG)
    assert process.returncode != 0
    assert wait_for(lambda: not cluster.trials(0) + cluster.trials(1), 120), "a trial went on without its study"
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("trial.json")}
    assert len(finished) < len(table)
    ended(cluster.study(tmp_path, resume=True))
    assert trials(tmp_path) == table
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.reliability(30)
@pytest.mark.parametrize("seconds", [4, 25, None], ids=str)
def test_a_cable_that_breaks(cluster: Cluster, tmp_path: Path, long_table: dict[str, Any], seconds: int | None) -> None:
    process = cluster.study(tmp_path, **LONG)
    assert begun(cluster, 1)
    cluster.machines.cut()
    if seconds:
        time.sleep(seconds)
        cluster.machines.join()
    ended(process)
    assert trials(tmp_path) == long_table
