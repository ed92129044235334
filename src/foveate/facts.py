"""What is known of a built-in mechanism besides its maths: the TOML file beside its source."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def facts(mechanism: str) -> Mapping[str, Any]:
    """Return the content of `mechanisms/<mechanism>.toml`; nothing for a mechanism that is not built in.

    docs/how-to/add-a-mechanism.md describes the keys, and a test compares every file with them.
    """
    table = files("foveate.mechanisms") / f"{mechanism}.toml"
    return tomllib.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
