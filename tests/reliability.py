"""The table of reliability: how many cases of each row of docs/reliability.md the tests tried, and how many held.

A test marked `reliability(9)` is one case of row 9; with the fixture `tried` it says how many cases it went through.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reliability.md"
ROW = re.compile(r"^\| (~~)?(\d+)\*?(?:~~)? \| (.*?) \| (.*?) ?\| (.*?) ?\|$", re.MULTILINE)
NUMBER = re.compile(r"\d[\d,]*")
MARK, CASES = "reliability", "cases"


@dataclass(frozen=True)
class Row:
    """A row of the page: what is promised, in how many cases at least (0: every one there is), and the tests' files."""

    number: int
    promise: str
    least: int
    tests: tuple[str, ...]
    struck_out: bool


@dataclass
class Tried:
    """The cases of one row: how many there were, how many held, and why tests of it were skipped."""

    tests: int
    cases: int
    held: int
    skipped: Counter[str]

    def verdict(self, row: Row) -> str:
        """Return one word or two on the row, as the table shows them."""
        if row.struck_out:
            return "struck out"
        if not self.tests:
            return "not run"
        if self.held < self.cases:
            return "FAILED"
        return "held" if self.held >= row.least else f"held, of {row.least:,} promised"


def rows(page: str) -> list[Row]:
    """Return the rows of the page's table; the first number of the third column is the least of `make test-all`."""
    found = []
    for struck_out, number, promise, cases, tests in ROW.findall(page):
        least = NUMBER.match(cases)
        files = tuple(re.findall(r"`(tests/[\w/.]+)`", tests))
        found.append(Row(int(number), promise, int(least[0].replace(",", "")) if least else 0, files, bool(struck_out)))
    return found


def table(reports: Mapping[str, Iterable[Any]], page: str) -> Iterator[str]:
    """Yield the lines of the table from pytest's reports by outcome."""
    known = {row.number: row for row in rows(page)}
    found = {number: Tried(0, 0, 0, Counter()) for number in known}
    for outcome in ("passed", "failed", "error", "skipped", "xpassed"):
        for report in reports.get(outcome, ()):
            properties = getattr(report, "user_properties", ())
            for number in (value for name, value in properties if name == MARK):
                _count(found[number], outcome, report, [value for name, value in properties if name == CASES])
    yield f"{'row':>3}  {'tests':>6} {'cases':>8} {'held':>8}  {'verdict':<24} promised"
    for number, row in known.items():
        one = found[number]
        counts = f"{one.tests:6,} {one.cases:8,} {one.held:8,}" if one.tests else f"{'':24}"
        yield f"{number:3}  {counts}  {one.verdict(row):<24} {row.promise}"
        for reason, count in one.skipped.items():
            yield f"{'':5}{count} of its tests skipped: {reason}"


def _count(row: Tried, outcome: str, report: Any, stated: list[tuple[int, int]]) -> None:
    if outcome == "skipped":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        row.skipped[reason.removeprefix("Skipped: ")] += 1
        return
    cases, held = (sum(each) for each in zip(*stated, strict=True)) if stated else (1, 1)
    if outcome != "passed":
        held = min(held, cases - 1)
    row.tests += 1
    row.cases += cases
    row.held += held


class Reliability:
    """The plugin: it reads the marks, and prints the table after a run with `--reliability`."""

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        numbers = {number for mark in item.iter_markers(MARK) for number in mark.args}
        item.user_properties += [(MARK, number) for number in sorted(numbers)]

    def pytest_terminal_summary(self, terminalreporter: Any, config: pytest.Config) -> None:
        if config.getoption("--reliability"):
            terminalreporter.section("what docs/reliability.md promises, and what was tried")
            for line in table(terminalreporter.stats, PAGE.read_text(encoding="utf-8")):
                terminalreporter.write_line(line)


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Callable[[int], None]:
    """State how many cases this test went through; all held, unless it also says how many did."""

    def state(cases: int, held: int | None = None) -> None:
        request.node.user_properties.append((CASES, (cases, cases if held is None else held)))

    return state
