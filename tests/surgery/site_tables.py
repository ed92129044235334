"""Read the tables of docs/how-to/sites.md: the sites of well-known networks, written by hand."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "sites.md"


def tables(page: str) -> dict[str, dict[str, dict[str, list[str]]]]:
    """Return for each section and network the names and patterns of each preset; none for a dash."""
    found: dict[str, dict[str, dict[str, list[str]]]] = {}
    section = ""
    for line in page.splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("| `"):
            network, stage, residual = (re.findall("`([^`]+)`", cell) for cell in line.strip("|").split("|"))
            found.setdefault(section, {})[network[0]] = {"stage": stage, "residual": residual}
    return found


TABLES = tables(PAGE.read_text(encoding="utf-8"))


def table(section: str) -> dict[str, dict[str, list[str]]]:
    """Return the table of the one section whose title starts so."""
    (found,) = (rows for title, rows in TABLES.items() if title.startswith(section))
    return found
