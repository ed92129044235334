"""Measure in a few seconds what a planner must know of a connected Ray cluster."""

import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveate.errors import UsageError
from foveate.experiment.options import Resolved
from foveate.files import cache_folder
from foveate.studies.planner import UNKNOWN_BANDWIDTH, Probe
from foveate.studies.ray_engine import on_each_node, places_to_ship, slots
from foveate.studies.remote_trial import digest_of, files_in

_ROWS = 200  # events whose handling is timed
_BYTES = 32 << 20  # sent to each node to time the network


def probe(options: Resolved) -> Probe:
    """Return what the connected cluster's nodes, network and driver do.

    Raises UsageError if no node can run a trial.
    """
    import ray

    threads, device = options.cpus_per_trial, options.device
    began = time.perf_counter()
    _answers(on_each_node(_ready))
    start_up = time.perf_counter() - began
    here = step_seconds(threads, device)
    there = statistics.median(_answers(on_each_node(step_seconds, threads, device)))
    stored = [ray.put(os.urandom(_BYTES))]  # in a list, so that a task gets the reference
    home = ray.get_runtime_context().get_node_id()
    fetched = [seconds for node, seconds in _answers(on_each_node(_fetch, stored)) if node != home]
    # They fetch at the same time, so together they have what the driver's machine can send.
    bandwidth = _BYTES * len(fetched) / max(fetched) if fetched else UNKNOWN_BANDWIDTH
    return Probe(start_up, _event_seconds(), bandwidth, statistics.median_low(slots(options)), here / there)


def bytes_to_ship(options: Resolved) -> int:
    """Return the bytes of the data, weights and code that a node of the connected cluster lacks."""
    places = {place: digest_of(Path(place)) for place in (places_to_ship(options) if options.address else [])}
    lacking = {place for found in _answers(on_each_node(_lacking, places)) for place in found}
    return sum(path.stat().st_size for place in lacking for path in files_in(Path(place)))


def step_seconds(threads: int, device: str) -> float:
    """Return the seconds of one training step of a small network: the fastest of some."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        layers = [nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
        model, images = nn.Sequential(*layers, *layers).to(device), torch.ones(16, 32, 56, 56, device=device)
        times = []
        for _ in range(8):
            began = time.perf_counter()
            model(images).mean().backward()
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
        return min(times)
    finally:
        torch.set_num_threads(before)


def _ready() -> None:
    import foveate.training  # noqa: F401 - what a trial imports


def _lacking(places: Mapping[str, str]) -> list[str]:
    """Return what this node has neither at its place nor, by its digest, in its cache."""
    return [place for place, own in places.items() if not (Path(place).exists() or (cache_folder() / own).exists())]


def _fetch(stored: Sequence[Any]) -> tuple[str, float]:
    import ray

    began = time.perf_counter()
    ray.get(stored[0])
    return ray.get_runtime_context().get_node_id(), time.perf_counter() - began


def _rows(count: int) -> Iterator[dict[str, float]]:
    for epoch in range(count):
        yield {"epoch": epoch, "train_loss": 0.5, "val_loss": 0.5, "val_score": 0.5, "seconds": 1.0}


def _event_seconds() -> float:
    """Return the seconds in which the driver takes one event from a task that sends them without a pause."""
    import ray

    send: Any = ray.remote(_rows)
    stream = send.options(num_returns="streaming", num_cpus=0).remote(_ROWS)
    ray.get(next(stream))
    began = time.perf_counter()
    for reference in stream:
        ray.wait([reference])
        ray.get(reference)
    return (time.perf_counter() - began) / (_ROWS - 1)


def _answers(found: list[Any]) -> list[Any]:
    for one in found:
        if isinstance(one, Exception):
            raise UsageError(
                expected="an answer from every node",
                received=f"{type(one).__name__}: {' '.join(str(one).split())[:300]}",
                do="look at the nodes with `foveate doctor --nodes`",
            )
    return found
