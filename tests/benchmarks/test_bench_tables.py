import json
from pathlib import Path
from typing import Any

from tools import bench_tables

TIMING = {"ms": 10.0, "q1": 9.0, "q3": 11.0, "ratio": 1.0, "low": 0.99, "high": 1.01}
PAGE = "before\n<!-- table: attach_overhead -->\nold\n<!-- /table -->\nafter\n"


def record() -> dict[str, Any]:
    calls = {
        "plain": TIMING,
        "plain again": TIMING,
        "foveate se": {**TIMING, "ratio": 1.25, "low": 1.2, "high": 1.3},
        "timm se": {**TIMING, "ratio": 1.5, "low": 1.4, "high": 1.6},
        "foveate spatial": TIMING,
    }
    provenance = {
        "created": "2026-01-02T03:04:05+00:00",
        "commit": "0123456789abcdef",
        "uncommitted_changes": False,
        "environment": {"foveate": "0.1.0", "processor": "A CPU", "packages": {"torch": "2.13.0", "timm": "1.0"}},
        "interval": 0.99,
        "threads": 2,
        "load_average": {"before": 0.1, "after": 1.9},
    }
    results = [{"host": "resnet18", "batch": 1, "layout": layout, "size": 224, "calls": calls} for layout in ("NCHW", "channels_last")]
    return {"name": "attach_overhead", "rounds": 15, "provenance": provenance, "results": results}


def test_the_committed_page_is_fresh() -> None:
    page = bench_tables.PAGE.read_text(encoding="utf-8")
    assert bench_tables.fill(page, bench_tables.RESULTS) == page


def test_a_block_is_filled_from_its_record(tmp_path: Path) -> None:
    (tmp_path / "attach_overhead.json").write_text(json.dumps(record()), encoding="utf-8")
    page = bench_tables.fill(PAGE, tmp_path)
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "| se | 1.25× [1.20, 1.30] | 1.50× [1.40, 1.60] | 1.25× [1.20, 1.30] | 1.50× [1.40, 1.60] |" in page
    assert "| spatial | 1.00× [0.99, 1.01] |  | 1.00× [0.99, 1.01] |  |" in page
    assert "A CPU, 2 threads; load 0.1 before and 1.9 after;\n15 rounds, 99 % intervals." in page
    assert bench_tables.fill(page, tmp_path) == page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert widths == {6}


def test_without_a_record_the_page_says_so(tmp_path: Path) -> None:
    assert "Not measured yet" in bench_tables.fill(PAGE, tmp_path)
