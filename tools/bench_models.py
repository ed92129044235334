"""The tables of the cost of attention in a whole model."""

from collections.abc import Iterator
from typing import Any

HOST = "plain host"
MAKERS = {"Foveate": "foveate", "by plain operations": "plain", "timm": "timm"}


def lines(record: dict[str, Any]) -> Iterator[str]:
    """Yield one table for each case: mechanisms in rows, packages in columns."""
    for result in record["results"]:
        calls, targets = result["calls"], result["targets"]
        mechanisms = [name.removeprefix("foveate ") for name in calls if name.startswith("foveate ")]
        makers = {
            title: maker for title, maker in MAKERS.items() if any(f"{maker} {name}" in calls for name in mechanisms)
        }
        yield from ("", f"**{result['host']}, batch {result['batch']}, {result['layout']}, {result['size']} px**", "")
        yield f"| | {' | '.join(makers)} |{' target |' if targets else ''}"
        yield "|---|" + "---:|" * (len(makers) + bool(targets))
        first = [f"{calls[HOST]['ms']:.1f} ms", *[""] * (len(makers) - 1)]
        yield _row(HOST, first, None, targets)
        yield _row(f"{HOST} again", [ratio(calls[f"{HOST} again"]), *first[1:]], None, targets)
        for name in mechanisms:
            yield _row(
                name,
                [ratio(calls.get(f"{maker} {name}")) for maker in makers.values()],
                _verdict(name, calls, targets),
                targets,
            )


def ratio(timing: dict[str, float] | None) -> str:
    """Return a ratio with its interval; an empty text where nothing was timed."""
    return f"{timing['ratio']:.2f}× [{timing['low']:.2f}, {timing['high']:.2f}]" if timing else ""


def _row(name: str, cells: list[str], target: str | None, targets: dict[str, float]) -> str:
    return f"| {' | '.join([name, *cells, *([target or ''] if targets else [])])} |"


def _verdict(mechanism: str, calls: dict[str, Any], targets: dict[str, float]) -> str | None:
    most = targets.get(mechanism.partition(",")[0])
    if most is None:
        return None
    return f"{'✓' if round(calls[f'foveate {mechanism}']['ratio'], 2) <= most else '✗'} {most:.2f}×"
