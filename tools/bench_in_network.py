"""The table of attention inside a network: the microseconds of a site, by what runs there."""

from collections.abc import Iterator
from typing import Any

NOTHING, HOOK = "nothing", "the hook"


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield a table with a row for each step and a column for each mechanism, then what the host's parts take."""
    results = record["results"]
    yield from ("", _row("µs at a site", [result["mechanism"] for result in results]), "|---|" + "---:|" * len(results))
    for step in results[0]["calls"]:
        if step != NOTHING:
            yield _row(step, [f"{1000 * result['calls'][step]['quick']:.0f}" for result in results])
    shares = [100 * _all_sites(result) / sum(result["host"].values()) for result in results]
    yield _row("*the hooks of all sites, in % of the plain blocks*", [f"{share:.1f}" for share in shares])
    host = results[0]["host"]
    parts = ", ".join(f"{part} {ms:.1f}" for part, ms in host.items() if part != "at the site")
    yield from ("", f"The {results[0]['sites']} plain blocks take, in ms: {parts}.")


def _all_sites(result: dict[str, Any]) -> float:
    return result["sites"] * (result["calls"][HOOK]["quick"] - result["calls"][NOTHING]["quick"])


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"
