"""A study on 1 to 1,000 machines: what the planner predicts, what a simulation gives, and a small check with Ray."""

import os
import random
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

import foveate
from benchmarks.cluster_simulation import Differences, simulate
from benchmarks.harness import make_record
from benchmarks.options import Options
from foveate.experiment.arms import Arm
from foveate.experiment.environment import cores, load_average
from foveate.experiment.options import Resolved, StudyOptions
from foveate.models import ensure_torchvision
from foveate.studies import ray_engine
from foveate.studies.cluster_probe import probe
from foveate.studies.planner import Probe, Workload, predict
from foveate.studies.trial import Trial

MACHINES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SITES = ("residual", "stage", "layer4.2")
IMAGES, EPOCHS, SEEDS, BATCH, SIDE = 2500, 20, 10, 16, 224
BYTES = 500e6  # of the photos, which every node gets once
RUNS = 200
NODES = (1, 2, 4, 8)  # of a real cluster on this machine, whose trials sleep
NAPS, NAP, NAP_EVENTS = 48, 4.0, 10


def measure(
    options: Options,
    *,
    machines: tuple[int, ...] = MACHINES,
    runs: int = RUNS,
    nodes: tuple[int, ...] = NODES,
    nap: float = NAP,
) -> Iterator[dict[str, Any]]:
    """Yield one record: the probe, seconds of steps, predicted and simulated times of studies, and the check with Ray.

    No call is timed, so its `results` are empty; `rounds` are the simulated runs.
    """
    before = load_average()
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))  # Ray reads them once
    real = [_real(count, nap) for count in nodes]
    with ray_engine.connected(None):
        measured = probe(StudyOptions(engine="ray", cpus_per_trial=cores()).resolve())
    measured = replace(measured, speed=1.0)  # the steps are measured on this machine
    steps = _steps(options.mechanisms)
    studies = [_compared(name, work, measured, machines, runs) for name, work in _studies(steps).items()]
    record = make_record("cluster", runs, before, results=[])
    differences = vars(Differences())
    yield record | {
        "probe": vars(measured),
        "differences": differences,
        "steps": steps,
        "studies": studies,
        "real": real,
    }


def _steps(mechanisms: tuple[str, ...]) -> dict[str, float]:
    """Return the seconds of a training step of a plain ResNet-50, and with each mechanism at each site."""
    ensure_torchvision()
    import timm

    images = torch.rand(BATCH, 3, SIDE, SIDE)
    steps: dict[str, float] = {}
    for name, site in [("none", ""), *((name, site) for name in mechanisms for site in SITES)]:
        torch.manual_seed(0)
        model = timm.create_model("resnet50")
        if site:
            foveate.attach(model, name, where=site)
        print(f"a step of ResNet-50, {name} {site}", flush=True)
        steps[f"{name} {site}".strip()] = _step(model.train(), images)
    return steps


def _step(model: nn.Module, images: torch.Tensor) -> float:
    """Return the seconds of a training step on an idle machine: the processor's time divided among the threads."""
    times = []
    for _ in range(2):
        began = time.process_time()
        model(images).mean().backward()
        times.append(time.process_time() - began)
    return min(times) / torch.get_num_threads()


def _studies(steps: Mapping[str, float]) -> dict[str, Workload]:
    """Return the studies by name: all seeds at once, added one by one, and of a network that is 50 times as fast."""
    epoch = [seconds * IMAGES / BATCH for seconds in steps.values()]
    trials = [seconds * EPOCHS for seconds in epoch]
    returned, events = 4.0 * 25.6e6, EPOCHS + 2
    at_once = Workload((tuple(trials * SEEDS),), BYTES, returned, events)
    looks = (tuple(trials * 3), *[tuple(trials)] * (SEEDS - 3))
    small = tuple(seconds / 50 for seconds in trials * SEEDS)
    return {
        f"{SEEDS} seeds": at_once,
        f"3 to {SEEDS} seeds, one after another": replace(at_once, rounds=looks),
        f"{SEEDS} seeds of trials 50 times as short": replace(at_once, rounds=(small,)),
    }


def _compared(name: str, work: Workload, measured: Probe, machines: tuple[int, ...], runs: int) -> dict[str, Any]:
    print(f"simulate {name}", flush=True)
    rows = []
    for forecast in predict(work, measured, machines):
        found = sorted(simulate(work, measured, forecast.machines, Differences(), seed) for seed in range(runs))
        low, high = found[round(0.05 * (runs - 1))], found[round(0.95 * (runs - 1))]
        rows.append(vars(forecast) | {"simulated": statistics.median(found), "interval": [low, high]})
    return {"study": name, "trials": work.trials, "machines": rows}


def _real(nodes: int, nap: float) -> dict[str, Any]:
    """Return the time of trials that sleep on a real cluster of nodes on this machine, beside the predicted one."""
    from ray.cluster_utils import Cluster

    print(f"Ray on {nodes} nodes", flush=True)
    cluster = Cluster()
    for _ in range(nodes):
        cluster.add_node(num_cpus=2, include_dashboard=False)
    chance = random.Random(0)
    seconds = [nap * chance.uniform(0.8, 1.2) for _ in range(NAPS)]
    try:
        with ray_engine.connected(cluster.address), tempfile.TemporaryDirectory() as folder:
            options = StudyOptions(engine="ray", address=cluster.address).resolve()
            engine = ray_engine.RayEngine(options, "")
            _sleep(engine, options, Path(folder) / "warm", [0.5 * nap] * 4 * nodes)  # starts the workers
            measured = probe(options)
            measured = replace(measured, start_up=0.0, speed=1.0)  # a trial that sleeps needs no processor
            took = _sleep(engine, options, Path(folder) / "timed", seconds)
    finally:
        cluster.shutdown()
    (forecast,) = predict(Workload((tuple(seconds),), 0.0, 0.0, NAP_EVENTS + 2), measured, (nodes,))
    return {"nodes": nodes, "trials": NAPS, "predicted": forecast.seconds, "measured": took}


def _sleep(engine: ray_engine.RayEngine, options: Resolved, folder: Path, seconds: Sequence[float]) -> float:
    """Run a trial for each number of seconds, which sleeps so long, and return the seconds that all took."""

    def nap(values: dict[str, Any], *_: Any) -> Iterator[dict[str, Any]]:
        yield {"event": "started"}
        for _epoch in range(NAP_EVENTS):
            time.sleep(seconds[values["seed"]] / NAP_EVENTS)
            yield {"event": "epoch", "row": {}}
        yield {"event": "done", "files": {"trial.json": b'{"status": "done"}'}}

    trials = [Trial(folder / str(seed), options, Arm("none"), seed, {}, 1, False) for seed in range(len(seconds))]
    with mock.patch.object(ray_engine, "run_remote", nap):
        began = time.perf_counter()
        engine.run(trials, lambda event: None)
        return time.perf_counter() - began
