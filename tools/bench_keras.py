"""The table of the Keras layers on one backend: our layer and another package's over the hand-written block."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

BY_HAND, OURS = "by hand", "foveate"
NO_BREAK = "\N{NO-BREAK SPACE}"
Result = dict[str, Any]


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield a row for each mechanism and map with both measures, then a summary and the layers that did not run."""
    results = record["results"]
    cells = {(result["measure"], result["mechanism"], tuple(result["shape"])): result for result in results}
    measures = list(dict.fromkeys(measure for measure, _, _ in cells))
    yield ""
    yield f"| | N×H×W×C | {' | '.join(f'{measure}, {BY_HAND} | {OURS} | another' for measure in measures)} |"
    yield "|---|---|" + "---:|---:|---:|" * len(measures)
    for mechanism, shape in dict.fromkeys((mechanism, shape) for _, mechanism, shape in cells):
        row = [column for measure in measures for column in _columns(cells.get((measure, mechanism, shape)))]
        yield f"| {mechanism} | {'×'.join(map(str, shape))} | {' | '.join(row)} |"
    yield from ("", _verdict(results))
    counts = Counter((name, reason) for result in results for name, reason in result["failed"].items())
    for (name, reason), count in counts.items():
        yield from ("", f"Did not run: {name}, {count} of the cells: `{reason}`")


def slower(result: Result) -> bool:
    """Return whether the whole interval of our ratio is above one."""
    return result["calls"][OURS]["low"] > 1


def faster(result: Result) -> bool:
    """Return whether the whole interval of our ratio is below one."""
    return result["calls"][OURS]["high"] < 1


def _columns(result: Result | None) -> tuple[str, str, str]:
    if result is None:
        return "", "", ""
    calls = result["calls"]
    others = [f"{_ratio(timing)}{NO_BREAK}{name}" for name, timing in calls.items() if name not in (BY_HAND, OURS)]
    return f"{calls[BY_HAND]['ms']:.2f}{NO_BREAK}ms", f"**{_ratio(calls[OURS])}**" + _mark(result), ", ".join(others)


def _ratio(timing: dict[str, float]) -> str:
    return f"{timing['ratio']:.2f}× [{timing['low']:.2f}, {timing['high']:.2f}]".replace(" ", NO_BREAK)


def _mark(result: Result) -> str:
    return f"{NO_BREAK}✗" if slower(result) else f"{NO_BREAK}✓" if faster(result) else ""


def _verdict(results: list[Result]) -> str:
    fast, slow = sum(map(faster, results)), sum(map(slower, results))
    counts = f"Of {len(results)} cells, ours is faster in {fast} (✓) and slower in {slow} (✗)"
    return f"{counts}; in the others the interval includes 1."
