"""The table of a study: the same rows in the report, on the command line and in a text file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foveate.report import format as fmt

_HEADINGS = {
    "arm": "Arm",
    "verdict": "Verdict",
    "score": "Test {measure} %",
    "difference": "Difference, points",
    "p": "p, adjusted",
    "could_have_seen": "Could have seen",
    "parameters": "Parameters",
    "macs": "MACs",
    "elementwise": "Element-wise",
    "bytes": "Bytes moved",
    "latency": "Latency",
    "memory": "Peak memory",
}

JUDGED = ("arm", "verdict", "score", "difference", "p", "could_have_seen", "latency")
COUNTED = ("arm", "parameters", "macs", "elementwise", "bytes", "memory")


def headings(results: Mapping[str, Any]) -> dict[str, str]:
    """The headings by column, with the name of the study's measure."""
    return {name: heading.format(measure=results.get("measure") or "accuracy") for name, heading in _HEADINGS.items()}


@dataclass(frozen=True)
class Row:
    """One arm as text; `baseline` is the arm that the others are compared with."""

    arm: str
    verdict: str
    score: str
    difference: str
    p: str
    could_have_seen: str
    parameters: str
    macs: str
    elementwise: str
    bytes: str
    latency: str
    memory: str

    def cells(self, columns: Sequence[str] = tuple(_HEADINGS)) -> list[str]:
        """The cells of some columns, of all by default."""
        return [getattr(self, name) for name in columns]


def rows(results: Mapping[str, Any]) -> list[Row]:
    """The rows of `results.json`, in the order of its arms."""
    return [_row(arm) for arm in results.get("arms") or []]


def also(results: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The arms as judged by each further measure, by its name."""
    unknown = dict.fromkeys(("mean", "sd", "difference", "verdict", "could_have_seen", "scores"))
    found = {}
    for name, one in (results.get("also") or {}).items():
        judged = (one or {}).get("arms") or {}
        found[name] = [{**arm, **unknown, **(judged.get(arm.get("slug")) or {})} for arm in results.get("arms") or []]
    return found


def summary_table(results: Mapping[str, Any]) -> str:
    """The table as aligned plain text, for a terminal or a log."""
    lines = [list(headings(results).values()), *(row.cells() for row in rows(results))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([texts[0], "  ".join("-" * width for width in widths), *texts[1:]])


def _row(arm: Mapping[str, Any]) -> Row:
    cost: Mapping[str, Any] = arm.get("cost") or {}
    latency: Mapping[str, Any] = cost.get("latency") or {}
    baseline = arm.get("verdict") == "baseline"
    return Row(
        arm=str(arm.get("label") or arm.get("slug") or fmt.MISSING),
        verdict=str(arm.get("verdict") or fmt.MISSING),
        score=fmt.score(arm.get("mean"), arm.get("sd")),
        difference="baseline" if baseline else fmt.difference(arm.get("difference")),
        p=fmt.p_value((arm.get("difference") or {}).get("p")),
        could_have_seen=fmt.plus_minus(arm.get("could_have_seen")),
        parameters=fmt.count(cost.get("parameters")) if baseline else fmt.added(cost.get("added_parameters")),
        macs=fmt.count(cost.get("macs")),
        elementwise=fmt.count(cost.get("elementwise")),
        bytes=fmt.size(cost.get("bytes")),
        latency=fmt.milliseconds(latency.get("ms")) if baseline else fmt.latency_ratio(latency),
        memory=fmt.size(cost.get("peak_memory")),
    )
