"""What is known of a built-in mechanism besides its maths: the TOML file beside its source."""

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

WEIGHS = ("channels", "positions", "channels and positions", "rows and columns", "pairs of positions", "scales")
OTHER = "of your own, or of other packages"


@cache
def facts(mechanism: str) -> Mapping[str, Any]:
    """Return the content of `mechanisms/<mechanism>.toml`; nothing for a mechanism that is not built in.

    docs/how-to/add-a-mechanism.md describes the keys, and a test compares every file with them.
    """
    table = files("foveate.mechanisms") / f"{mechanism}.toml"
    return tomllib.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Return names of mechanisms by what they weigh, in the order of `WEIGHS`, then those that are not built in."""
    groups: dict[str, list[str]] = {group: [] for group in (*WEIGHS, OTHER)}
    for name in names:
        groups[facts(name).get("weighs", OTHER)].append(name)
    return {group: members for group, members in groups.items() if members}
