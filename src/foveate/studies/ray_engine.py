"""Run trials on a Ray cluster, one task for each; see docs/design/engines.md."""

import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foveate import user_code
from foveate.errors import UsageError, missing_extra
from foveate.experiment.entries import own_names
from foveate.experiment.environment import cores
from foveate.experiment.options import Resolved, located
from foveate.files import read_json
from foveate.studies.engine import Event
from foveate.studies.remote_trial import (
    Contents,
    Expected,
    Parcel,
    digest_of,
    files_in,
    read_folder,
    run_remote,
    write_folder,
)
from foveate.studies.shared_results import SharedResults
from foveate.studies.trial import Trial, blank, write_trial

logger = logging.getLogger("foveate")

LARGEST = 2 << 30
"""The bytes of data that are shipped; larger data belong on a path that all nodes share."""


_ASKS_AFTER = {"time": 10, "timeout": 20}
"""Seconds after which a silent node is asked whether it is there, and for which its answer is awaited.

With Ray's own 300 and 120 a trial on a node whose cable broke is given to another after more than seven minutes.
"""


_own_token = secrets.token_hex(32)
"""The token of the clusters that this process starts."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to a cluster, "auto" or HOST:PORT, or start one on this machine that ends with the block.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: the cluster does not answer, or does not ask for a token.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for setting, seconds in _ASKS_AFTER.items():
        os.environ.setdefault(f"RAY_grpc_client_keepalive_{setting}_ms", str(1000 * seconds))
    if address is None and not _asks_for_a_token():
        if "ray" in sys.modules:  # it reads the environment once, when it is imported
            raise UsageError(
                expected="RAY_AUTH_MODE=token, set before Ray is imported",
                received="Ray, imported without it: others could run code on a cluster that it starts",
                do='set os.environ["RAY_AUTH_MODE"] = "token" first, or run the study as a command',
            )
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_own_token)
    if address not in (None, "auto"):
        _require_token(address)
    ray = _ray()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init("local", num_cpus=cores(), include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(
            expected=f"a Ray cluster at {address}" if address else "a new Ray cluster on this machine",
            received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            do="start one with `ray start --head`, or leave --address out to use this machine",
        ) from None
    try:
        head = ray.get_runtime_context().gcs_address
        if head.rpartition(":")[0] not in _own_addresses():  # "auto" may have led there
            _require_token(head)
        yield
    finally:
        ray.shutdown()


def _require_token(address: str) -> None:
    """Raise UsageError unless clusters of other machines are only used with a token of theirs."""
    if not _asks_for_a_token() or os.environ.get("RAY_AUTH_TOKEN") == _own_token:
        raise UsageError(
            expected="RAY_AUTH_MODE=token for a cluster on another machine",
            received=f"{address}, a cluster that anyone who reaches it could run code on",
            do="start its nodes with RAY_AUTH_MODE=token and set that here, with the token in ~/.ray/auth_token",
        )


def _asks_for_a_token() -> bool:
    return os.environ.get("RAY_AUTH_MODE") == "token"


def _own_addresses() -> set[str]:
    import psutil

    return {one.address for several in psutil.net_if_addrs().values() for one in several}


def slots(options: Resolved) -> list[int]:
    """Return how many trials each node of the cluster runs at the same time, without nodes that can run none.

    Raises UsageError if none of its nodes can run one.
    """
    nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
    found = [min(_times(node, name, amount) for name, amount in _wants(options).items()) for node in nodes]
    if not any(found):
        offers = sorted({f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes})
        raise UsageError(
            expected=f"a node with {options.cpus_per_trial} CPUs and {options.gpus_per_trial:g} GPUs for a trial",
            received=f"nodes with {', '.join(offers)}",
            do="lower --cpus-per-trial or --gpus-per-trial, or add such a node",
        )
    return [count for count in found if count]


def _wants(options: Resolved) -> dict[str, float]:
    wants = {"CPU": float(options.cpus_per_trial), "GPU": options.gpus_per_trial}
    return {name: amount for name, amount in wants.items() if amount}


def _times(node: Mapping[str, float], name: str, amount: float) -> int:
    return int(node.get(name, 0) / amount)


class RayEngine:
    """Runs each trial as a task of the connected cluster.

    `content` is the digest of what the trials read; their files go to `shared`, or else come back to this machine.
    """

    def __init__(self, options: Resolved, content: str, shared: SharedResults | None = None):
        self.options, self.expected, self.shared = options, Expected.here(content), shared
        # once, though `run` is called for each added seed
        self.parcels = parcels(options) if options.address else {}

    def run(self, trials: Sequence[Trial], on_event: Callable[[Event], None]) -> None:
        """Run every trial; one whose node died more than `retries` times is recorded as failed."""
        ray = _ray()
        task = ray.remote(run_remote)
        common = {"max_retries": self.options.retries, "num_returns": "streaming"}
        if self.options.gpus_per_trial:
            common["num_gpus"] = self.options.gpus_per_trial
        rest = (self.expected, self.parcels, self.shared)
        streams = {
            task.options(num_cpus=trial.threads, **common).remote(_portable(trial), *rest): trial for trial in trials
        }
        try:
            while streams:
                ready, _ = ray.wait(list(streams), num_returns=1, timeout=0.5)
                for stream in ready:
                    if self._next(stream, streams[stream], on_event):
                        del streams[stream]
        finally:
            for stream in streams:
                ray.cancel(stream, force=True)

    def _next(self, stream: Any, trial: Trial, on_event: Callable[[Event], None]) -> bool:
        """Handle the next event of a task, and return whether it has ended."""
        ray = _ray()
        try:
            event = ray.get(next(stream))
        except StopIteration:
            return True
        except ray.exceptions.RayError as error:
            write_trial(trial.folder, {**blank(trial), "error": f"{type(error).__name__}: {str(error)[:4000]}"})
            on_event(Event("done", trial, status="failed"))
            return True
        if event["event"] == "refused":
            raise UsageError(expected=event["expected"], received=event["received"], do=event["do"])
        if event["event"] == "done":
            if "why" in event:
                logger.warning("%s came back to this machine: %s", trial.folder.name, event["why"])
            found = event["files"] if self.shared is None or "files" in event else self.shared.get(trial.folder.name)
            write_folder(trial.folder, found, last="trial.json")
            on_event(Event("done", trial, status=read_json(trial.folder / "trial.json")["status"]))
            return True
        on_event(Event(event["event"], trial, row=event.get("row")))
        return False


class _Stored(Parcel):
    """A parcel in Ray's object store, from which each node fetches it once."""

    def __init__(self, place: Path):
        self._reference = _ray().put(_shippable(place))
        self.digest = digest_of(place)

    def contents(self) -> Contents:
        return _ray().get(self._reference)


def parcels(options: Resolved) -> dict[str, Parcel]:
    """Put what nodes may lack into the object store, and return it by its absolute place."""
    return {place: _Stored(Path(place)) for place in places_to_ship(options)}


def places_to_ship(options: Resolved) -> list[str]:
    """Return the absolute places of what nodes may lack: data, first weights and the user's own code."""
    values = located(options.to_dict())
    names = [values["model"], *own_names(values["attention"])]
    code = [home for home in (name.rpartition(":")[0] for name in names) if home.endswith(".py")]
    data, weights = values["data"], values["weights"]
    places = [data] if data and Path(data).is_dir() else []  # a data file names others, which are not known here
    return places + [place for place in (weights, *code) if place and Path(place).is_file()]


def on_each_node(function: Callable[..., Any], *args: Any) -> list[Any]:
    """Return what a function returns on each node of the connected cluster, or the RayError with which it failed."""
    ray = _ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(function)
    running = []
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            running.append(task.options(num_cpus=0, scheduling_strategy=there).remote(*args))
    found = []
    for reference in running:
        try:
            found.append(ray.get(reference))
        except ray.exceptions.RayError as error:
            found.append(error)
    return found


def _shippable(place: Path) -> Contents:
    if (size := sum(path.stat().st_size for path in files_in(place))) > LARGEST:
        raise UsageError(
            expected=f"at most {LARGEST / 2**30:g} GiB to ship to the nodes",
            received=f"{size / 2**30:.1f} GiB in {place}",
            do="put them on a path that all nodes share, under the same name",
        )
    return read_folder(place)


def _portable(trial: Trial) -> dict[str, Any]:
    values = trial.to_dict()
    arm = {**values["arm"], "mechanism": user_code.located(trial.arm.mechanism)}
    return {**values, "options": located(trial.options.to_dict()), "arm": arm}


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError:
        raise missing_extra("ray", "ray") from None
    return ray
