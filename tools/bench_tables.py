"""Write the tables and plots of docs/benchmarks*.md from benchmarks/results/**/*.json; `--check` only checks them."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_cluster
import bench_data_loading
import bench_detection
import bench_every_mechanism
import bench_explorer
import bench_growth
import bench_in_network
import bench_inference
import bench_keras
import bench_kernels
import bench_models
import bench_site

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks-xeon.md")
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table: ([\w/]+) -->\n).*?(<!-- /table -->)", re.DOTALL)
# By the first part of a record's name.
LINES = {
    "kernels": bench_kernels.lines,
    "whole_models": bench_models.lines,
    "every_mechanism": bench_every_mechanism.lines,
    "growth": bench_growth.lines,
    "detection": bench_detection.lines,
    "data_loading": bench_data_loading.lines,
    "keras": bench_keras.lines,
    "cluster": bench_cluster.lines,
    "inference": bench_inference.lines,
    "in_network": bench_in_network.lines,
    "explorer": bench_explorer.lines,
    "site": bench_site.lines,
}


def main() -> int:
    """Rewrite the pages and their plots, or with --check return 1 when one of them is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    files = {page: fill(page.read_text(encoding="utf-8"), RESULTS) for page in PAGES}
    files |= {IMAGES / name: text for name, text in plots(RESULTS).items()}
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if check:
            print(f"{path.relative_to(ROOT)} is stale: run python tools/bench_tables.py", file=sys.stderr)
        else:
            path.write_text(files[path], encoding="utf-8")
    return int(check and bool(stale))


def fill(page: str, results: Path) -> str:
    """Return the page with every block `<!-- table: NAME --> ... <!-- /table -->` made from `NAME.json`."""

    def block(match: re.Match[str]) -> str:
        path = results / f"{match[2]}.json"
        if not path.is_file():
            return f"{match[1]}\nNot measured yet: run `make bench`.\n\n{match[3]}"
        record = json.loads(path.read_text(encoding="utf-8"))
        made = next(lines for name, lines in LINES.items() if path.name.startswith(name))
        return f"{match[1]}\n{chr(10).join([*origin(record), *made(record)])}\n\n{match[3]}"

    return BLOCK.sub(block, page)


def plots(results: Path) -> dict[str, str]:
    """Return the SVG of every plot whose record exists, by file name."""
    path = results / "growth.json"
    return bench_growth.plots(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def origin(record: dict[str, Any]) -> Iterator[str]:
    """Yield the provenance of the numbers in words."""
    made = record["provenance"]
    machine, load = made["environment"], made["load_average"]
    versions = record.get("packages") or {name: machine["packages"][name] for name in ("torch", "timm")}
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    changed = " with changes" if made["uncommitted_changes"] else ""
    yield f"{made['created'][:10]}, commit {made['commit'][:10]}{changed}, foveate {machine['foveate']}, {packages}."
    yield f"{machine['processor']}, {made['threads']} thread{'s' * (made['threads'] != 1)}, kernels: {made['kernels']};"
    yield f"load {load['before']} before and {load['after']} after;"
    by = ", CPU time" if record.get("clock") == "cpu" else ""
    yield f"{record['rounds']} rounds{by}, {100 * made['interval']:.0f} % intervals."


if __name__ == "__main__":
    sys.exit(main())
