"""The tables of YOLOv4-tiny inference: the network, the whole of `predict`, and the growth of NMS."""

from collections.abc import Iterator
from typing import Any

BASELINE, WHOLE, AROUND, SITES = "plain", "whole", "all but the network", ", its sites"
Result = dict[str, Any]


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield a table with a column for each batch size, a table of shares, and a table of growth."""
    parts: dict[str, list[Result]] = {}
    for result in record["results"]:
        parts.setdefault(result["part"], []).append(result)
    yield from _network(parts["network"])
    yield from _predict(parts["predict"][0])
    yield from _nms(parts["nms"])


def _network(results: list[Result]) -> Iterator[str]:
    target = results[0]["target"]
    columns = [column for result in results for column in (f"batch {result['batch']}", "its sites alone")]
    yield from ("", f"**Network, {results[0]['size']} px**", "")
    yield from (f"| | {' | '.join(columns)} | target |", "|---|" + "---:|" * (len(columns) + 1))
    for name in dict.fromkeys(name for result in results for name in result["calls"] if not name.endswith(SITES)):
        cells, attends = [], name + SITES in results[0]["calls"]
        for calls in (result["calls"] for result in results):
            shown = f"{calls[name]['ms']:.1f} ms" if name == BASELINE else _ratio(calls.get(name))
            verdict = f" {_mark(calls[name]['ratio'], target)}" if attends else ""
            cells += [shown + verdict, f"{100 * calls[name + SITES]['ratio']:.1f} %" if attends else ""]
        yield f"| {name} | {' | '.join(cells)} | {f'{target:.2f}×' if attends else ''} |"
    for result in results:
        for name, reason in result["failed"].items():
            yield from ("", f"Batch {result['batch']}, {name}: `{reason}`")


def _predict(result: Result) -> Iterator[str]:
    width, height = result["picture"]
    yield from (
        "",
        f"**Predict, one image of {width} × {height}, {result['candidates']} candidates, {result['kept']} boxes**",
        "",
    )
    yield from ("| | ms | share | target |", "|---|---:|---:|---:|")
    for name, timing in result["calls"].items():
        share = (
            ""
            if name == WHOLE
            else f"{100 * timing['ratio']:.1f} % [{100 * timing['low']:.1f}, {100 * timing['high']:.1f}]"
        )
        target = (
            f"{_mark(timing['ratio'], result['target'], 3)} {100 * result['target']:.0f} %" if name == AROUND else ""
        )
        yield f"| {name} | {timing['ms']:.2f} | {share} | {target} |"


def _nms(results: list[Result]) -> Iterator[str]:
    yield from ("", "**NMS**, time and memory divided by linear growth from the first row; ✓ at most 1, ✗ above 1", "")
    yield from ("| candidates | | kept | ms | time | MB | memory |", "|---:|---|---:|---:|---:|---:|---:|")
    for result in results:
        least = next(iter(result["calls"]))
        for count, timing in result["calls"].items():
            linear = int(count) / int(least)
            time, memory = timing["ratio"] / linear, result["peak_mb"][count] / result["peak_mb"][least] / linear
            growth = ["", ""] if count == least else [f"{value:.2f} {_mark(value, 1)}" for value in (time, memory)]
            row = (
                result["kind"],
                result["kept"][count],
                f"{timing['ms']:.1f}",
                growth[0],
                f"{result['peak_mb'][count]:.2f}",
                growth[1],
            )
            yield f"| {int(count):,} | {' | '.join(map(str, row))} |"


def _mark(value: float, most: float, digits: int = 2) -> str:
    return "✓" if round(value, digits) <= most else "✗"


def _ratio(timing: dict[str, float] | None) -> str:
    return f"{timing['ratio']:.2f}× [{timing['low']:.2f}, {timing['high']:.2f}]" if timing else ""
