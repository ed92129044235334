"""How the time and memory of non-maximum suppression grow with its candidates."""

import tracemalloc
from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness import measure_calls
from benchmarks.options import Options
from foveate.detection.nms import nms

COUNTS = (1_000, 2_000, 5_000, 10_000, 20_000)
# The number of places; each has candidates of two classes. With many places, 300 boxes are kept early; with few, NMS
# must look at all candidates.
PLACES = {"spread": 400, "crowded": 40}
SIDE = 416
SHORTEST = 0.01  # seconds


def measure_growth(kind: str, counts: tuple[int, ...], options: Options) -> dict[str, Any]:
    """Return the result of one kind of NMS: for each number of candidates the relative time, boxes kept, and memory."""
    calls = {str(count): partial(nms, *candidates(count, PLACES[kind])) for count in counts}
    peaks = {name: _peak(call) for name, call in calls.items()}
    timings = measure_calls(calls, str(counts[0]), options.rounds, shortest=SHORTEST, clock=options.clock)
    print(f"NMS, {kind}:", "; ".join(f"{name} {timing['ms']:.2f} ms" for name, timing in timings.items()), flush=True)
    kept, megabytes = ({name: peak[part] for name, peak in peaks.items()} for part in (0, 1))
    return {"part": "nms", "kind": kind, "kept": kept, "peak_mb": megabytes, "calls": timings}


def candidates(count: int, places: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels; the boxes lie within a few pixels of their places."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(20, SIDE - 20, (places, 2))[rng.integers(0, places, count)] + rng.normal(0, 3, (count, 2))
    half = rng.uniform(12, 16, (count, 2))
    boxes = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
    return boxes, rng.random(count).astype(np.float32), rng.integers(0, 2, count)


def _peak(call: "partial[np.ndarray]") -> tuple[int, float]:
    """Return the number of boxes kept, and the peak memory in MB without the candidates."""
    tracemalloc.start()
    kept = len(call())
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return kept, round(megabytes, 3)
