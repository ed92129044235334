"""Write the tables of docs/benchmarks.md from benchmarks/results/*.json; `--check` only says whether they are fresh."""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def main() -> int:
    """Rewrite the page, or with --check return 1 when it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    before = PAGE.read_text(encoding="utf-8")
    after = fill(before, RESULTS)
    if check:
        if after != before:
            print("docs/benchmarks.md is stale: run python tools/bench_tables.py", file=sys.stderr)
        return int(after != before)
    PAGE.write_text(after, encoding="utf-8")
    return 0


def fill(page: str, results: Path) -> str:
    """Return the page with every block `<!-- table: NAME --> ... <!-- /table -->` made from `NAME.json`."""

    def block(match: re.Match[str]) -> str:
        path = results / f"{match[2]}.json"
        if not path.is_file():
            return f"{match[1]}\nNot measured yet: run `make bench`.\n\n{match[3]}"
        return f"{match[1]}\n{chr(10).join(attach_overhead(json.loads(path.read_text(encoding='utf-8'))))}\n\n{match[3]}"

    return BLOCK.sub(block, page)


def attach_overhead(record: dict[str, Any]) -> Iterator[str]:
    """Yield the lines: one table a host and batch size, mechanisms down, layouts and makers across."""
    yield from _origin(record)
    cases = {(result["host"], result["batch"], result["layout"]): result["calls"] for result in record["results"]}
    layouts = list(dict.fromkeys(layout for _, _, layout in cases))
    for host, batch in dict.fromkeys((host, batch) for host, batch, _ in cases):
        here = [cases[host, batch, layout] for layout in layouts]
        names = [name.removeprefix("foveate ") for name in here[0] if name.startswith("foveate ")]
        size = record["results"][0]["size"]
        yield from ("", f"**{host}, batch {batch}, {size} px**", "")
        yield "| | " + " | ".join(f"{layout}: Foveate | {layout}: timm" for layout in layouts) + " |"
        yield "|---|" + "---:|" * (2 * len(layouts))
        yield "| plain host | " + " | ".join(f"{calls['plain']['ms']:.1f} ms | " for calls in here) + " |"
        yield "| plain host again | " + " | ".join(f"{_ratio(calls['plain again'])} | " for calls in here) + " |"
        for name in names:
            cells = [_ratio(calls.get(f"{maker} {name}")) for calls in here for maker in ("foveate", "timm")]
            yield f"| {name} | " + " | ".join(cells) + " |"


def _origin(record: dict[str, Any]) -> Iterator[str]:
    origin = record["provenance"]
    machine = origin["environment"]
    packages = ", ".join(f"{name} {machine['packages'][name]}" for name in ("torch", "timm"))
    interval = f"{100 * origin['interval']:.0f} % intervals"
    load, changed = origin["load_average"], " with changes" if origin["uncommitted_changes"] else ""
    yield f"{origin['created'][:10]}, commit {origin['commit'][:10]}{changed}, foveate {machine['foveate']}, {packages}."
    yield f"{machine['processor']}, {origin['threads']} threads; load {load['before']} before and {load['after']} after;"
    yield f"{record['rounds']} rounds, {interval}."


def _ratio(timing: dict[str, float] | None) -> str:
    return f"{timing['ratio']:.2f}× [{timing['low']:.2f}, {timing['high']:.2f}]" if timing else ""


if __name__ == "__main__":
    sys.exit(main())
