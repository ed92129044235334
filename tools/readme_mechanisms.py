"""Write the README's table of mechanisms from the catalogue; `--check` only checks it."""

import argparse
import re
import sys
from pathlib import Path

from foveate.facts import grouped
from foveate.mechanisms import built_in

README = Path(__file__).resolve().parent.parent / "README.md"
TABLE = re.compile(r"(?<=^## The mechanisms\n\n)(?:\|.*\n)+", re.MULTILINE)


def main() -> int:
    """Write the table, or return 1 with --check when it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    text = README.read_text(encoding="utf-8")
    if parser.parse_args().check:
        stale = text != written(text)
        print("README.md is stale: run python tools/readme_mechanisms.py" if stale else "README.md is fresh")
        return int(stale)
    README.write_text(written(text), encoding="utf-8")
    return 0


def written(text: str) -> str:
    """Return the README with the table of the present catalogue."""
    made, count = TABLE.subn(lambda _: table(), text)
    if count != 1:
        raise LookupError("the README has no table below '## The mechanisms'")
    return made


def table() -> str:
    """Write a row for each kind of thing that mechanisms weigh, with their names."""
    rows = [f"| {group} | {', '.join(f'`{name}`' for name in names)} |" for group, names in grouped(built_in()).items()]
    return "\n".join(["| what they weigh | mechanisms |", "| --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
