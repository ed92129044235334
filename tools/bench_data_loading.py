"""The tables of data loading: the share of a training's time in which it computes, and the time of a step."""

from collections.abc import Iterator
from typing import Any

Result = dict[str, Any]


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield a table for each kind of photos, with a row for each cache and number of workers."""
    kinds: dict[str, list[Result]] = {}
    for result in record["results"]:
        kinds.setdefault(result["photos"], []).append(result)
    for kind, epochs in kinds.items():
        first = epochs[0]
        width, height = first["pixels"]
        yield from ("", f"**Photos {kind}**, {width} × {height} pixels, {first['steps']} steps an epoch", "")
        heads = [f"{one['epoch']} epoch: {what}" for one in epochs for what in ("busy", "ms a step", "times")]
        yield f"| cache | workers | {' | '.join(heads)} |"
        yield "|---|---:|" + "---:|" * len(heads)
        for name in first["calls"]:
            cache, workers = name.split(", ")
            cells = [cell for one in epochs for cell in _cells(one["calls"][name], one["target"])]
            yield f"| {cache} | {workers} | {' | '.join(cells)} |"


def _cells(timing: dict[str, float], target: float) -> tuple[str, str, str]:
    mark = "✓" if timing["busy"] >= target else "✗"
    busy = f"{100 * timing['busy']:.1f} % {mark} (least {100 * timing['least_busy']:.1f} %)"
    return busy, f"{timing['ms']:.0f}", f"{timing['ratio']:.2f}"
