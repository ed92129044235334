"""Timing in interleaved rounds, and records that say where their numbers come from."""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 1
PACKAGES = ("foveate", "torch", "timm", "numpy")

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def interleave(
    calls: Mapping[str, Callable[[], object]], rounds: int, *, warmup: int = 2, seed: int = 0, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Time every call once a round, in an order drawn anew each round; seconds by name, a value a round.

    What slows the machine down for a while then slows all calls alike, and leaves their ratios within a round as they are.
    """
    rng = np.random.default_rng(seed)
    names = list(calls)
    for _ in range(warmup):
        for call in calls.values():
            call()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for place in rng.permutation(len(names)):
            name = names[place]
            began = clock()
            calls[name]()
            seconds[name].append(clock() - began)
    return seconds


def compare(seconds: Sequence[float], baseline: Sequence[float], *, level: float = 0.95) -> dict[str, float]:
    """Return the median of the rounds' ratios to the baseline, with the interval between two of those ratios that is exact for a median.

    The true median lies outside the k smallest and k largest of n values with probability 2 P(Binomial(n, 1/2) < k), whatever their
    distribution; with fewer than 6 rounds no k reaches 95 %, and the interval is the whole range.
    """
    ratios = sorted(slow / fast for slow, fast in zip(seconds, baseline, strict=True))
    rounds, cut = len(ratios), 0
    while 2 * sum(math.comb(rounds, hits) for hits in range(cut + 1)) / 2**rounds <= 1 - level:
        cut += 1
    outside = max(cut - 1, 0)
    return {"ratio": statistics.median(ratios), "low": ratios[outside], "high": ratios[rounds - 1 - outside]}


def summarise(seconds: Mapping[str, Sequence[float]], baseline: str) -> dict[str, dict[str, float]]:
    """Return for each call its median and quartiles in milliseconds, and its ratio to the baseline."""
    return {name: {**_milliseconds(values), **compare(values, seconds[baseline])} for name, values in seconds.items()}


def provenance(threads: int, load_before: float | None) -> dict[str, Any]:
    """Return where and with what numbers were made; `load_before` is the load average when the measuring began."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no", "--", "src", "benchmarks/*.py")),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_average": {"before": load_before, "after": load_average()},
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
    }


def load_average() -> float | None:
    """Return the machine's load over the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def write(record: Mapping[str, Any], path: Path) -> None:
    """Write a record whole or not at all. Raises ValueError when it is not of the schema."""
    if problems := check(record):
        raise ValueError("; ".join(problems))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


_NUMBER = (int, float)
_TEXT = (str,)
_PROVENANCE = {
    "created": _TEXT,
    "commit": _TEXT,
    "uncommitted_changes": (bool,),
    "versions": (dict,),
    "cpu": _TEXT,
    "cores": (int,),
    "threads": (int,),
    "load_average": (dict,),
    "command": _TEXT,
}
_RESULT = {"ms": _NUMBER, "q1": _NUMBER, "q3": _NUMBER, "ratio": _NUMBER, "low": _NUMBER, "high": _NUMBER}


def check(record: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a record: `{schema, name, rounds, provenance, results: [{case..., calls: {name: timing}}]}`."""
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
    return [f"{where}.{name} is {record.get(name)!r}" for name, kinds in fields.items() if not isinstance(record.get(name), kinds)]


def _milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    q1, _, q3 = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [seconds[0]] * 3
    return {"ms": round(1000 * statistics.median(seconds), 4), "q1": round(1000 * q1, 4), "q3": round(1000 * q3, 4)}


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
