"""How the time and memory of non-maximum suppression grow with its candidates."""

import tracemalloc
from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness import measure_calls
from benchmarks.options import Options
from foveate.detection.nms import nms

COUNTS = (1_000, 2_000, 5_000, 10_000, 20_000)
# How many places there are, each with candidates of two classes on it: many, of which 300 stay soon, or few, so that
# all are looked at.
PLACES = {"spread": 400, "crowded": 40}
SIDE = 416
SHORTEST = 0.01  # seconds


def measure_growth(kind: str, counts: tuple[int, ...], options: Options) -> dict[str, Any]:
    """Return the result of one kind: for each number of candidates its time, over that of the first; how many stay; the peak of memory."""
    calls = {str(count): partial(nms, *candidates(count, PLACES[kind])) for count in counts}
    peaks = {name: _peak(call) for name, call in calls.items()}
    timings = measure_calls(calls, str(counts[0]), options.rounds, shortest=SHORTEST, clock=options.clock)
    print(f"NMS, {kind}:", "; ".join(f"{name} {timing['ms']:.2f} ms" for name, timing in timings.items()), flush=True)
    kept, megabytes = ({name: peak[part] for name, peak in peaks.items()} for part in (0, 1))
    return {"part": "nms", "kind": kind, "kept": kept, "peak_mb": megabytes, "calls": timings}


def candidates(count: int, places: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels, scattered by a few pixels about their places."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(20, SIDE - 20, (places, 2))[rng.integers(0, places, count)] + rng.normal(0, 3, (count, 2))
    half = rng.uniform(12, 16, (count, 2))
    boxes = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
    return boxes, rng.random(count).astype(np.float32), rng.integers(0, 2, count)


def _peak(call: "partial[np.ndarray]") -> tuple[int, float]:
    """Return how many stay, and the most memory in MB beyond the candidates."""
    tracemalloc.start()
    kept = len(call())
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return kept, round(megabytes, 3)
