"""The tables of every mechanism against plain modules of its authors' form."""

from collections.abc import Iterator
from typing import Any

from bench_models import ratio

MOST = 1.05  # times the better of the reference and timm
OURS, REFERENCE, TIMM = "foveate", "reference", "timm"


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield one table: mechanisms in rows, shapes and layouts in columns, our time over the reference's in cells."""
    places = list(dict.fromkeys(_place(result) for result in record["results"]))
    rows: dict[str, dict[str, str]] = {}
    for result in record["results"]:
        rows.setdefault(result["mechanism"], {})[_place(result)] = cell(result["calls"])
    yield from ("", f"| | {' | '.join(places)} |", "|---|" + "---:|" * len(places))
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(cells.get(place, '') for place in places)} |"


def cell(calls: dict[str, dict[str, float]]) -> str:
    """Return our ratio to the reference, timm's where there is one, and a mark where ours is slower than allowed."""
    theirs = f" (timm {calls[TIMM]['ratio']:.2f}×)" if TIMM in calls else ""
    better = min(calls[name]["ratio"] for name in (REFERENCE, TIMM) if name in calls)
    slower = calls[OURS]["low"] > MOST * better  # also the end of the interval that favours us
    return f"{'✗ ' if slower else ''}{ratio(calls[OURS])}{theirs}"


def _place(result: dict[str, Any]) -> str:
    return f"{'×'.join(map(str, result['shape']))}, {result['layout']}"
