"""The tables of a study as CSV files, beside the page and inside it."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from foveate.files import write_table
from foveate.report.axes import label

_TRIALS = {"summary.csv": "a row for each trial", "failures.csv": "the trials that did not finish"}
_COST = ("parameters", "added_parameters", "macs", "elementwise", "bytes", "peak_memory")
_LATENCY = ("ms", "ratio", "low", "high")
_MOST = 2_000_000  # bytes of a file inside the page


def csv_files(run: Path, results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Write arms.csv and classes.csv; return each CSV file of the folder: its name, its content in words, its address.

    The address is a data URI, so that a copy of the page has the tables too; a large file is linked.
    """
    arms = results.get("arms") or []
    write_table(run / "arms.csv", *_arms(arms))
    words = {**_TRIALS, "arms.csv": "a row for each arm: verdict, difference, cost"}
    if results.get("classes"):
        write_table(run / "classes.csv", *_classes(arms, results["classes"]))
        words["classes.csv"] = "a row for each class and arm: the change against the plain host, with its interval"
    return [(name, text, _address(run / name)) for name, text in words.items() if (run / name).is_file()]


def _address(path: Path) -> str:
    content = path.read_bytes()
    return path.name if len(content) > _MOST else f"data:text/csv;base64,{base64.b64encode(content).decode('ascii')}"


def _arms(arms: Sequence[Mapping[str, Any]]) -> tuple[list[str], Iterator[list[Any]]]:
    columns = ["arm", "verdict", "trials", "mean", "sd", "difference", "low", "high", "p", *_COST]
    columns += [f"latency_{name}" for name in _LATENCY]

    def row(arm: Mapping[str, Any]) -> list[Any]:
        difference, cost = arm.get("difference") or {}, arm.get("cost") or {}
        own = [label(arm), *(arm.get(name) for name in ("verdict", "n_done", "mean", "sd"))]
        own += [difference.get(name) for name in ("estimate", "low", "high", "p")]
        return [
            *own,
            *(cost.get(name) for name in _COST),
            *((cost.get("latency") or {}).get(name) for name in _LATENCY),
        ]

    return columns, map(row, arms)


def _classes(
    arms: Sequence[Mapping[str, Any]], classes: Sequence[Mapping[str, Any]]
) -> tuple[list[str], Iterator[list[Any]]]:
    names = {arm.get("slug"): label(arm) for arm in arms}
    return ["class", "host", "arm", "difference", "low", "high"], (
        [
            one.get("name"),
            one.get("host"),
            names.get(slug, slug),
            *((found or {}).get(key) for key in ("estimate", "low", "high")),
        ]
        for one in classes
        for slug, found in (one.get("arms") or {}).items()
    )
