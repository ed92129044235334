"""The tables of every mechanism against plain modules of its authors' form."""

from collections.abc import Callable, Iterator
from typing import Any

from bench_kernels import best_peer
from bench_models import ratio

MOST = 1.05  # times the better of the reference and timm
OURS, REFERENCE, TIMM = "foveate", "reference", "timm"
Result = dict[str, Any]


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield our time over the reference's, then over the best peer's where peers were compiled."""
    yield from _table(record["results"], lambda result: cell(result["calls"]))
    compiled = [result for result in record["results"] if any(name.endswith(" compiled") for name in result["calls"])]
    if not compiled:
        return
    yield from ("", "**The mechanisms with a kernel against their best peer**: the fastest of the reference and timm's")
    yield "module, eager and compiled. A cell is our time divided by its time, and its name."
    yield from _table(compiled, against_best)


def _table(results: list[Result], shown: Callable[[Result], str]) -> Iterator[str]:
    """Yield one table: mechanisms in rows, shapes and layouts in columns."""
    places = list(dict.fromkeys(_place(result) for result in results))
    rows: dict[str, dict[str, str]] = {}
    for result in results:
        rows.setdefault(result["mechanism"], {})[_place(result)] = shown(result)
    yield from ("", f"| | {' | '.join(places)} |", "|---|" + "---:|" * len(places))
    for name, cells in rows.items():
        yield f"| {name} | {' | '.join(cells.get(place, '') for place in places)} |"


def cell(calls: dict[str, dict[str, float]]) -> str:
    """Return our ratio to the reference, timm's where there is one, and a mark where ours is slower than allowed."""
    theirs = f" (timm {calls[TIMM]['ratio']:.2f}×)" if TIMM in calls else ""
    better = min(calls[name]["ratio"] for name in (REFERENCE, TIMM) if name in calls)
    slower = calls[OURS]["low"] > MOST * better  # also the end of the interval that favours us
    return f"{'✗ ' if slower else ''}{ratio(calls[OURS])}{theirs}"


def against_best(result: Result) -> str:
    """Return our time over that of the best peer, its name, and a mark where ours is slower than allowed."""
    name, best = best_peer(result)
    ours = result["calls"][OURS]
    return f"{'✗ ' if ours['low'] > MOST * best else ''}{ours['ratio'] / best:.2f}× {name}"


def _place(result: dict[str, Any]) -> str:
    return f"{'×'.join(map(str, result['shape']))}, {result['layout']}"
