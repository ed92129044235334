"""The table of the explorer: the size of its page, and the time to open it."""

from collections.abc import Iterator
from typing import Any

BLANK, EXPLORER = "blank page", "explorer"


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield a table with a row for each number of arms."""
    yield from ("", "| arms | images shown | layers | size | target | opened in | quartiles | target | a blank page |")
    yield "|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    for result in record["results"]:
        opened, target = result["calls"][EXPLORER], result["target"]
        size, seconds = result["bytes"] / 1e6, opened["ms"] / 1000
        yield (
            f"| {result['arms']} | {result['shown']} of {result['images']} | {result['layers']} "
            f"| {size:.1f} MB{_mark(result['bytes'], target['bytes'])} | {target['bytes'] / 1e6:.0f} MB "
            f"| {seconds:.2f} s{_mark(seconds, target['seconds'])} "
            f"| {opened['q1'] / 1000:.2f} to {opened['q3'] / 1000:.2f} s | {target['seconds']:.0f} s "
            f"| {result['calls'][BLANK]['ms'] / 1000:.2f} s |"
        )


def _mark(value: float, most: float) -> str:
    return " ✓" if value < most else " ✗"
