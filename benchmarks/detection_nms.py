"""How the time and memory of non-maximum suppression grow with its candidates: python -m benchmarks.detection_nms."""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np

from foveate.detection.nms import nms

COUNTS = (1_000, 2_000, 5_000, 10_000, 20_000)
# How many places there are, each with candidates of two classes on it: many, of which 300 stay soon, or few, so that all are looked at.
PLACES = {"spread": 400, "crowded": 40}
SIDE = 416


def candidates(count: int, places: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels, scattered by a few pixels about their places."""
    rng = np.random.default_rng(0)
    centre = rng.uniform(20, SIDE - 20, (places, 2))[rng.integers(0, places, count)] + rng.normal(0, 3, (count, 2))
    half = rng.uniform(12, 16, (count, 2))
    boxes = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
    return boxes, rng.random(count).astype(np.float32), rng.integers(0, 2, count)


def measure(rounds: int) -> Iterator[dict[str, float | str]]:
    """Yield for each kind and number of candidates how many stay, the median milliseconds and the peak in MB beyond the candidates."""
    for kind, places in PLACES.items():
        for count in COUNTS:
            boxes, scores, labels = candidates(count, places)
            kept, megabytes = _peak(lambda: nms(boxes, scores, labels))  # noqa: B023 - called at once
            seconds = []
            for _ in range(rounds):
                start = time.perf_counter()
                nms(boxes, scores, labels)
                seconds.append(time.perf_counter() - start)
            yield {"kind": kind, "candidates": count, "kept": len(kept), "ms": 1e3 * statistics.median(seconds), "peak_mb": megabytes}


def _peak(call: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    tracemalloc.start()
    found = call()
    megabytes = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return found, megabytes


def main() -> None:
    """Print a line for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    for result in measure(parser.parse_args().rounds):
        print("{kind:8} {candidates:6} candidates {kept:4} kept {ms:8.1f} ms {peak_mb:6.2f} MB".format(**result))


if __name__ == "__main__":
    main()
