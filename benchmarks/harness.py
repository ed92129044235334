"""Timing in interleaved rounds, and records that state the provenance of their numbers."""

import ctypes
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foveate import files, kernels
from foveate.experiment.environment import cores, describe_environment, load_average
from foveate.experiment.latency import LEVEL, summary, time_rounds

SCHEMA = 1

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's <malloc.h>

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Calls = Mapping[str, Callable[[], object]]


def measure_calls(
    calls: Calls,
    baseline: str,
    rounds: int,
    *,
    shortest: float = 0,
    before: Callable[[], object] | None = None,
    device: str = "cpu",
    clock: str = "wall",
) -> dict[str, dict[str, float]]:
    """Time every call in interleaved rounds; return median, quartiles in milliseconds, and ratio to the baseline.

    The ratio comes with its interval. A call shorter than `shortest` seconds is repeated within a round until the round
    takes that long, so that the clock's own error is small. Before each timed call `before` runs untimed, or the call
    itself where there is no `before`. The "cpu" clock stops while other processes run, and adds up this process's
    threads.
    """
    on_cpu = partial(time_rounds, seconds=math.inf, before=before, clock=CLOCKS[clock])
    time_all = partial(_time_rounds_on_gpu, before=before) if device == "cuda" else on_cpu
    times = dict.fromkeys(calls, 1)
    if shortest:
        once = time_all({name: _repeated(call, 3) for name, call in calls.items()}, least=1, most=1)
        times = {name: max(1, math.ceil(3 * shortest / seconds.min())) for name, seconds in once.items()}
    rounds_of = time_all(
        {name: _repeated(call, times[name]) for name, call in calls.items()}, least=rounds, most=rounds
    )
    seconds = {name: values / times[name] for name, values in rounds_of.items()}
    return {name: summary(values, seconds[baseline]) for name, values in seconds.items()}


def check_clock(clock: str) -> None:
    """Raise ValueError for the CPU clock where several threads would run at the same time."""
    if clock == "cpu" and cores() > 1:
        raise ValueError("the CPU clock adds up the threads: run on one core, for example with taskset -c 0")


def make_record(name: str, rounds: int, load_before: float | None, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the record of one benchmark, ready for `write`."""
    origin = provenance(torch.get_num_threads(), load_before)
    return {"schema": SCHEMA, "name": name, "rounds": rounds, "provenance": origin, "results": results}


def provenance(threads: int, load_before: float | None) -> dict[str, Any]:
    """Return the provenance of numbers: time, versions and machine; `load_before` is the load average at the start."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(
            _git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py")
        ),
        "environment": describe_environment(),
        "interval": LEVEL,
        "threads": threads,
        "kernels": kernels.description(),
        "load_average": {"before": load_before, "after": load_average()},
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
    }


def keep_memory() -> None:
    """Make glibc keep freed memory, so that no timed call has page faults; no effect on other C libraries."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def write(record: Mapping[str, Any], path: Path) -> None:
    """Write a record completely or not at all. Raises ValueError when it does not fit the schema."""
    if problems := check(record):
        raise ValueError("; ".join(problems))
    files.write_json(path, record)


_NUMBER = (int, float)
_TEXT = (str,)
_PROVENANCE = {
    "created": _TEXT,
    "commit": _TEXT,
    "uncommitted_changes": (bool,),
    "environment": (dict,),
    "interval": (float,),
    "threads": (int,),
    "kernels": _TEXT,
    "load_average": (dict,),
    "command": _TEXT,
}
_RESULT = {"ms": _NUMBER, "q1": _NUMBER, "q3": _NUMBER, "ratio": _NUMBER, "low": _NUMBER, "high": _NUMBER}


def check(record: Mapping[str, Any]) -> list[str]:
    """Return the problems of a record, {schema, name, rounds, provenance, results: [{..., calls: {name: timing}}]}."""
    problems = [f"schema is {record.get('schema')!r}, not {SCHEMA}"] if record.get("schema") != SCHEMA else []
    problems += _missing(record, {"name": _TEXT, "rounds": (int,), "provenance": (dict,), "results": (list,)}, "record")
    if problems:
        return problems
    problems += _missing(record["provenance"], _PROVENANCE, "provenance")
    for number, result in enumerate(record["results"]):
        if not isinstance(result.get("calls"), dict) or not result["calls"]:
            problems.append(f"results[{number}] has no calls")
            continue
        for name, timing in result["calls"].items():
            problems += _missing(timing, _RESULT, f"results[{number}].calls[{name!r}]")
            if not problems and not 0 < timing["low"] <= timing["ratio"] <= timing["high"]:
                problems.append(f"results[{number}].calls[{name!r}]: the ratio is outside its interval")
    return problems


def _missing(record: Mapping[str, Any], fields: Mapping[str, tuple[type, ...]], where: str) -> list[str]:
    return [
        f"{where}.{name} is {record.get(name)!r}"
        for name, kinds in fields.items()
        if not isinstance(record.get(name), kinds)
    ]


def _repeated(call: Callable[[], object], times: int) -> Callable[[], object]:
    def repeated() -> None:
        for _ in range(times):
            call()

    return repeated if times > 1 else call


def _time_rounds_on_gpu(
    calls: Calls, *, least: int, most: int, before: Callable[[], object] | None
) -> dict[str, NDArray[np.float64]]:
    """Time `most` rounds as `time_rounds` does, with the GPU's own clock."""
    names, rng = list(calls), np.random.default_rng(0)
    seconds = {name: np.zeros(most) for name in names}
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    for number in range(most):
        for k in rng.permutation(len(names)):
            (before or calls[names[k]])()
            start.record()
            calls[names[k]]()
            end.record()
            end.synchronize()
            seconds[names[k]][number] = start.elapsed_time(end) / 1000
    return seconds


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
