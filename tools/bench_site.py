"""The table of one attached module: the microseconds of each step of a call on a very small map."""

from collections.abc import Iterator
from typing import Any


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield a table with a row for each step and a column for each mechanism."""
    results = record["results"]
    yield from (
        "",
        f"| µs | {' | '.join(result['mechanism'] for result in results)} |",
        "|---|" + "---:|" * len(results),
    )
    for step in results[0]["calls"]:
        times = [f"{1000 * result['calls'][step]['ms']:.1f}" for result in results]
        yield f"| {step} | {' | '.join(times)} |"
