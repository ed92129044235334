"""The page on reliability names the tests of each row, and the table counts their cases."""

import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reliability import CASES, MARK, PAGE, Reliability, rows, table

PROMISED = """
| 1* | one | every shape | `tests/a.py` |
| 2 | two | 20,000; 800 in `make test` | `tests/a.py` |
| ~~3~~ | three | | |
| 4 | four | 5 | |
| 5 | five | 2 | |
"""


def report(row: int, *cases: tuple[int, int], longrepr: Any = None) -> Any:
    return SimpleNamespace(user_properties=[(MARK, row), *((CASES, each) for each in cases)], longrepr=longrepr)


def test_the_page_has_every_row_and_the_tests_that_hold_it(root: Path) -> None:
    mark = re.compile(rf"^ *@pytest\.mark\.{MARK}\(([\d, ]+)\)", re.MULTILINE)
    found = defaultdict[int, set[str]](set)
    for path in (root / "tests").rglob("*.py"):
        for numbers in mark.findall(path.read_text(encoding="utf-8")):
            for number in numbers.split(","):
                found[int(number)].add(path.relative_to(root).as_posix())
    page = rows(PAGE.read_text(encoding="utf-8"))
    assert [row.number for row in page] == list(range(1, 34))
    assert {row.number: set(row.tests) for row in page} == {row.number: found[row.number] for row in page}


def test_the_table_counts_cases() -> None:
    reports = {
        "passed": [report(1), report(1), report(2, (20_000, 20_000)), report(5, (1, 1))],
        "failed": [report(4), report(4, (5, 5), (5, 4))],
        "skipped": [report(5, longrepr=("file", 1, "Skipped: needs root"))],
    }
    lines = [line.split(None, 5) for line in list(table(reports, PROMISED))[1:]]
    assert lines == [
        ["1", "2", "2", "2", "held", "one"],
        ["2", "1", "20,000", "20,000", "held", "two"],
        ["3", "struck", "out", "three"],
        ["4", "2", "11", "9", "FAILED", "four"],
        ["5", "1", "1", "1", "held,", "of 2 promised      five"],
        ["1", "of", "its", "tests", "skipped:", "needs root"],
    ]
    assert "not run" in list(table({}, PROMISED))[1]


def test_a_test_says_its_rows_and_cases(request: pytest.FixtureRequest, tried: Any) -> None:
    request.node.add_marker(pytest.mark.reliability(2, 1))
    Reliability().pytest_itemcollected(request.node)
    tried(3)
    tried(2, 1)
    said = request.node.user_properties.copy()
    request.node.user_properties.clear()  # it is no case of these rows
    assert said == [(MARK, 1), (MARK, 2), (CASES, (3, 3)), (CASES, (2, 1))]
