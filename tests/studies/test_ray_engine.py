"""Studies on a Ray cluster give the table of this machine, whatever dies on the way."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from foveate.errors import MissingExtra, UsageError
from foveate.experiment.options import StudyOptions
from foveate.files import read_json
from foveate.studies import ray_engine, run
from foveate.studies.costs import measure_costs
from foveate.studies.outline import Outline
from foveate.studies.remote_trial import Contents, Parcel
from foveate.studies.run import run_study
from foveate.studies.study_folder import StudyFolder
from studies.tiny import tiny, wait_for
from work import HANG

ON_A_CLUSTER = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]
TIMES = ("seconds", "history")


@pytest.fixture(autouse=True)
def _brief_latencies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "measure_costs", partial(measure_costs, seconds=0.0))


@pytest.fixture(autouse=True, scope="module")
def _token() -> None:
    """Ray reads these once, when it is imported, so they stay."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", "0" * 64)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of nodes on this machine, each with one core, which `add_node` makes larger."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


def trials(folder: Path) -> dict[str, Any]:
    """Return what the trials of a study found, without their times."""
    found = {path.parent.name: read_json(path) for path in (folder / "trials").glob("*/trial.json")}
    return {name: {key: value for key, value in trial.items() if key not in TIMES} for name, trial in found.items()}


def study(project: Path, **changes: Any) -> Path:
    folder = run_study(tiny(project, seeds=2, **changes), command="foveate study")
    assert folder is not None
    return folder


def on_ray(project: Path, **changes: Any) -> Path:
    return study(project, engine="ray", jobs=None, **changes)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The trials of the study on this machine's own engine, with one thread each as on the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "measure_costs", partial(measure_costs, seconds=0.0))
        patch.setattr("foveate.studies.outline.cores", lambda: 1)
        return trials(study(tmp_path_factory.mktemp("local")))


class TestOnACluster:
    pytestmark = ON_A_CLUSTER

    @pytest.mark.reliability(30)
    def test_a_new_cluster_gives_the_same_table_and_ends(self, tmp_path: Path, table: dict[str, Any]) -> None:
        assert trials(on_ray(tmp_path)) == table
        assert not [p.name() for p in psutil.Process().children(recursive=True) if "ray" in p.name()]

    @pytest.mark.reliability(30)
    def test_nodes_that_die_and_come(self, cluster: Any, tmp_path: Path, table: dict[str, Any]) -> None:
        node = cluster.add_node(num_cpus=1)
        killed: list[str] = []

        class Killer(run.Progress):
            def trial_done(self, slug: str, seed: int, status: str, trial: dict[str, Any]) -> None:
                if not killed:
                    killed.append(slug)
                    cluster.remove_node(node, allow_graceful=False)
                    cluster.add_node(num_cpus=1)

        options = tiny(tmp_path, seeds=2, engine="ray", jobs=None, address="auto")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", cluster.address)
            folder = run_study(options, progress=Killer(), command="foveate study")
        assert killed
        assert folder is not None
        assert trials(folder) == table

    @pytest.mark.reliability(30)
    def test_a_trial_whose_process_is_killed_runs_again(self, tmp_path: Path, table: dict[str, Any]) -> None:
        killed: list[int] = []

        class Killer(run.Progress):
            def epoch_done(self, slug: str, seed: int, row: dict[str, Any], epochs: int) -> None:
                for process in psutil.Process().children(recursive=True):
                    if not killed and "run_remote" in " ".join(process.cmdline()):
                        killed.append(process.pid)
                        process.kill()

        folder = run_study(tiny(tmp_path, seeds=2, engine="ray", jobs=None), progress=Killer(), command="foveate study")
        assert killed
        assert folder is not None
        assert trials(folder) == table

    @pytest.mark.reliability(30)
    def test_an_interrupted_driver_leaves_no_process_and_resumes(self, tmp_path: Path, table: dict[str, Any]) -> None:
        values = tiny(tmp_path, seeds=2, engine="ray", jobs=None).to_dict()
        code = f"""
import json
from foveate.studies import run
from foveate.experiment.options import StudyOptions
run.measure_costs = lambda models, shape, **_: {{name: None for name in models}}
run.run_study(StudyOptions.from_dict(json.loads({json.dumps(values)!r})), command="foveate study")
"""
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert wait_for(lambda: bool(list(tmp_path.rglob("trial.json"))) or process.poll() is not None)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG) != 0
        _, alive = psutil.wait_procs(children, HANG)
        assert not alive
        (folder,) = (tmp_path / "study").iterdir()
        assert 1 <= len(trials(folder)) < len(table)
        on_ray(tmp_path, resume=True)
        assert trials(folder) == table

    def test_a_dry_run_predicts_the_time_on_more_machines(self, cluster: Any, tmp_path: Path) -> None:
        cluster.add_node(num_cpus=1)
        heard: list[Outline] = []
        progress = run.Progress()
        progress.outlined = heard.append  # type: ignore[method-assign]
        options = tiny(tmp_path, seeds="3..6", dry_run=True, engine="ray", jobs=None, address="auto")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", cluster.address)
            assert run_study(options, progress=progress) is None
        (plan,) = heard
        first, *_ = plan.forecasts
        assert (first.machines, first.times_faster) == (1, 1.0)
        assert first.seconds > 25  # latencies and the report
        assert "1 machine " in str(plan)
        assert plan.to_dict()["forecasts"][0]["bound"] == first.bound

    def test_a_trial_that_fits_no_node_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"a node with 999 CPUs and 0 GPUs") as raised:
            on_ray(tmp_path, cpus_per_trial=999)
        assert "lower --cpus-per-trial" in raised.value.do
        assert not (tmp_path / "study").exists()

    def test_data_are_shipped_to_a_cluster(self, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The parcels of a study that names a cluster can be opened in a task."""
        import ray

        def contents(parcels: Mapping[str, Parcel]) -> dict[str, Contents]:  # inside, so that Ray sends its code
            return {place: parcel.contents() for place, parcel in parcels.items()}

        (tmp_path / "photos" / "a").mkdir(parents=True)
        (tmp_path / "photos" / "a" / "x.png").write_bytes(b"x")
        options = tiny(tmp_path, data=tmp_path / "photos", engine="ray", jobs=None, address="auto").resolve()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        with ray_engine.connected("auto"):
            parcels = ray_engine.parcels(options)
            open_all: Any = ray.remote(contents)
            opened = ray.get(open_all.remote(parcels))
        assert opened == {str(tmp_path / "photos"): {"a/x.png": b"x"}}


def test_a_cluster_elsewhere_needs_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(UsageError, match="RAY_AUTH_MODE=token for a cluster on another machine"):
        on_ray(tmp_path, address="192.0.2.1:6379")
    assert not list(tmp_path.iterdir())


def test_the_own_token_is_none_for_a_cluster_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", ray_engine._own_token)
    with pytest.raises(UsageError, match="for a cluster on another machine"), ray_engine.connected("192.0.2.1:6379"):
        pass


def test_no_cluster_without_a_token_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(UsageError, match="set before Ray is imported"), ray_engine.connected(None):
        pass


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cpu"), (0.5, "cuda")])
def test_the_device_follows_from_what_a_trial_takes(gpus: float, device: str) -> None:
    assert StudyOptions(engine="ray", gpus_per_trial=gpus).resolve().device == device


def test_a_resumed_study_takes_the_cores_that_it_began_with(tmp_path: Path) -> None:
    folder = study(tmp_path)
    begun = read_json(folder / "study.json")
    begun["outline"]["threads"] = 999  # as on a larger machine
    (folder / "study.json").write_text(json.dumps(begun))
    options = tiny(tmp_path, seeds=2, engine="ray", jobs=None).resolve()
    assert run._as_begun(options, StudyFolder(folder)).cpus_per_trial == 999


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"foveate\[ray\]"):
        on_ray(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": "dask"}, "engine: local or ray"),
        ({"address": "auto"}, "--address only with --engine ray"),
        ({"cpus_per_trial": 2, "retries": 0}, "--cpus-per-trial, --retries only with --engine ray"),
        ({"engine": "ray", "jobs": 2}, "--cpus-per-trial, by which a cluster decides"),
        ({"engine": "ray", "device": "cuda"}, "--gpus-per-trial with --device cuda"),
        ({"engine": "ray", "device": "cpu", "gpus_per_trial": 1}, "--gpus-per-trial with --device cuda"),
        ({"engine": "ray", "cpus_per_trial": 0}, "cpus-per-trial: at least 1"),
        ({"engine": "ray", "gpus_per_trial": float("nan")}, "gpus-per-trial: 0 or more"),
    ],
)
def test_options_that_cannot_work(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StudyOptions(**given)


def test_what_is_too_large_is_not_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large").write_bytes(b"123")
    monkeypatch.setattr(ray_engine, "LARGEST", 2)
    with pytest.raises(UsageError, match="put them on a path that all nodes share"):
        ray_engine._shippable(tmp_path)
