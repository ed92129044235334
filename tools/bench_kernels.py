"""The tables of the kernels: all packages, every cell with its target, and the bounds of the cells that miss it."""

from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

OURS, CLONE, READ = "foveate", "clone", "read"
SIDES = {CLONE: 2, READ: 1}  # memory traffic in maps: clone reads and writes, read only reads
NOT_PEERS = (OURS, f"{OURS} compiled", CLONE, READ)
NO_BREAK = "\N{NO-BREAK SPACE}"
Result = dict[str, Any]


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield three tables, then the calls that did not run."""
    results = record["results"]
    mechanisms = list(dict.fromkeys(result["mechanism"] for result in results))
    yield from ("", "**All implementations**, median over the maps and layouts, smallest to largest in brackets", "")
    yield from _makers(results, mechanisms)
    yield from ("", "**All maps**: ours (✓ target met, ✗ target missed), then the best peer", "")
    yield from _maps(results, mechanisms)
    ran = [result for result in results if OURS in result["calls"]]
    if missed := [result for result in ran if not met(result)]:
        yield from ("", f"**Lower bounds for the {len(missed)} of {len(ran)} that miss their target**", "")
        yield from _bounds(missed)
    elif ran:
        yield from ("", f"All {len(ran)} targets are met.")
    yield from _failures(results)


def ours(result: Result) -> float:
    """Return the time of our kernels, in units of clone."""
    return result["calls"][OURS]["ratio"]


def best_peer(result: Result) -> tuple[str, float]:
    """Return the fastest call that is not ours or a unit, and its time in units of clone."""
    peers = {name: timing["ratio"] for name, timing in result["calls"].items() if name not in NOT_PEERS}
    return min(peers.items(), key=lambda item: item[1])


def limit(result: Result) -> float:
    """Return the longest time that the target allows, in units of clone."""
    target = result["target"]
    return target["most"] if "most" in target else best_peer(result)[1] / target["times_as_fast"]


def met(result: Result) -> bool:
    """Whether our kernels meet the target, in the two decimals that are shown."""
    return round(ours(result), 2) <= round(limit(result), 2)


def bound(result: Result, passes: dict[str, int]) -> float:
    """Return the shortest possible time of these passes, in units of clone.

    Each write is counted with a read, as in clone; the remaining reads count as reads alone.
    """
    calls = result["calls"]
    return passes["writes"] + (passes["reads"] - passes["writes"]) * calls[READ]["ms"] / calls[CLONE]["ms"]


def _makers(results: list[Result], mechanisms: list[str]) -> Iterator[str]:
    names = list(dict.fromkeys(name for result in results for name in result["calls"] if name not in (CLONE, READ)))
    yield f"| | {' | '.join(names)} |"
    yield "|---|" + "---:|" * len(names)
    for mechanism in mechanisms:
        here = [result["calls"] for result in results if result["mechanism"] == mechanism]
        cells = [_spread([calls[name]["ratio"] for calls in here if name in calls]) for name in names]
        yield f"| {mechanism} | {' | '.join(cells)} |"


def _spread(ratios: list[float]) -> str:
    shown = f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if ratios else ""
    return shown.replace(" ", NO_BREAK)


def _maps(results: list[Result], mechanisms: list[str]) -> Iterator[str]:
    yield f"| N×C×H×W | layout | {' | '.join(mechanisms)} |"
    yield "|---|---|" + "---:|" * len(mechanisms)
    cells = {(*_place(result), result["mechanism"]): result for result in results}
    for place in dict.fromkeys(_place(result) for result in results):
        shown = [_cell(cells.get((*place, mechanism))) for mechanism in mechanisms]
        yield f"| {' | '.join(place)} | {' | '.join(shown)} |"
    targets = [
        sorted({r["target"]["most"] for r in results if r["mechanism"] == name and "most" in r["target"]})
        for name in mechanisms
    ]
    if any(targets):
        yield f"| *target: at most* | | {' | '.join(' or '.join(f'*{most:g}*' for most in one) for one in targets)} |"


def _place(result: Result) -> tuple[str, str]:
    return "×".join(map(str, result["shape"])), result["layout"]


def _cell(result: Result | None) -> str:
    if result is None or OURS not in result["calls"]:
        return ""
    return NO_BREAK.join((f"**{ours(result):.2f}**", "✓" if met(result) else "✗", f"{best_peer(result)[1]:.2f}"))


def _bounds(missed: list[Result]) -> Iterator[str]:
    yield "| | N×C×H×W | layout | ours > target | best peer | each map once | every pass | GB/s |"
    yield "|---|---|---|---:|---|---:|---:|---:|"
    for result in missed:
        place = " | ".join((result["mechanism"], *_place(result), f"{ours(result):.2f} > {limit(result):.2f}"))
        peer = best_peer(result)[0].replace(" ", NO_BREAK)
        bounds = f"{bound(result, result['once']):.2f} | {bound(result, result['passes']):.2f}"
        speeds = f",{NO_BREAK}".join(
            f"{sides * result['bytes'] / result['calls'][name]['ms'] / 1e6:.0f}" for name, sides in SIDES.items()
        )
        yield f"| {place} | {peer} | {bounds} | {speeds} |"


def _failures(results: list[Result]) -> Iterator[str]:
    counts = Counter(
        (name, result["mechanism"], reason) for result in results for name, reason in result["failed"].items()
    )
    if counts:
        yield from ("", "Did not run:", "")
    for (name, mechanism, reason), count in counts.items():
        yield f"- {name}, {mechanism}, {count} of the maps: `{reason}`"
