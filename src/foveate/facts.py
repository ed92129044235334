"""What is known of a mechanism besides its maths: the TOML file beside its source."""

import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

from foveate.errors import UsageError
from foveate.mechanisms import get
from foveate.parts import GateKind
from foveate.spec import Mechanism

WEIGHS = ("channels", "positions", "channels and positions", "rows and columns", "pairs of positions", "scales")
OTHER = "of your own, or of other packages"

# The keys of a file, as docs/how-to/add-a-mechanism.md describes them; the catalogue needs the first ones.
NEEDED = frozenset({"weighs", "gates", "place", "use", "formula", "golden"})
KEYS = NEEDED | {"copies", "defaults", "kernel", "layouts", "meanings", "refuse", "smallest", "test", "try"}
INNER = {
    "test": {"batch", "channels", "open", "options", "widths"},
    "refuse": {"options", "message"},
    "layouts": {"name", "source", "names", "flip", "options"},
}


def facts(mechanism: str | type[Mechanism]) -> Mapping[str, Any]:
    """Return the content of `<name>.toml` beside the source of a mechanism, by name or class; nothing without a file.

    Raises UsageError for an unknown name, and for a file that is no TOML or has other keys than those of the page on
    adding a mechanism.
    """
    kind = get(mechanism) if isinstance(mechanism, str) else mechanism
    folder = home(kind)
    path = folder / f"{kind.name}.toml" if folder else None
    return _read(path) if path and path.is_file() else {}


def home(kind: type[Mechanism]) -> Path | None:
    """Return the folder of the file that defines a mechanism; None for one that was typed, as in a notebook."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Path(file).parent if file else None


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Return names of mechanisms by what they weigh, in the order of `WEIGHS`, then those of which it is not known."""
    groups: dict[str, list[str]] = {group: [] for group in (*WEIGHS, OTHER)}
    for name in names:
        groups[facts(name).get("weighs", OTHER)].append(name)
    return {group: members for group, members in groups.items() if members}


def wrong(known: Mapping[str, Any]) -> list[str]:
    """Return what is wrong in the content of a file."""
    found = [f"unknown {key}" for key in set(known) - KEYS]
    for key, allowed in INNER.items():
        entries = known.get(key, [])
        for entry in entries if isinstance(entries, list) else [entries]:
            found += [f"unknown {key}.{inner}" for inner in set(entry) - allowed]
    found += ["weighs"] if known.get("weighs", WEIGHS[0]) not in WEIGHS else []
    found += ["gates"] if not set(known.get("gates", ())) <= set(get_args(GateKind)) else []
    return sorted(found)


@cache
def _read(path: Path) -> Mapping[str, Any]:
    try:
        known = tomllib.loads(path.read_text(encoding="utf-8"))
        found = ", ".join(wrong(known))
    except (ValueError, AttributeError, TypeError) as error:
        known, found = {}, f"{type(error).__name__}: {error}"
    if found:
        raise UsageError(
            expected=f"what is known of a mechanism in {path}, with the keys of the page on adding a mechanism",
            received=found,
            do="correct the file, or rename it if it is about something else",
        )
    return known
