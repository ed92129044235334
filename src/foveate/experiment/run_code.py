"""The code that the records of a run name: none of it is imported here, and none is run that comes with the folder."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveate import user_code
from foveate.errors import UsageError, shortened
from foveate.experiment.entries import own_names


def named_code(args: Mapping[str, Any], arm: Any) -> list[str]:
    """Return the names of a user's code in the options of a run and in its arm, which may be a slug only."""
    attention = args.get("attention") or []
    listed = attention.split(",") if isinstance(attention, str) else list(map(str, attention))
    names = [str(args.get("model")), *own_names(listed), *([str(arm["mechanism"])] if isinstance(arm, Mapping) else [])]
    return list(dict.fromkeys(name for name in names if user_code.is_own(name)))


def check_code(folder: Path, names: list[str]) -> None:
    """Raise UsageError for code that came with the folder of a run, or may have.

    A training names a file by its full path. A relative path is from elsewhere: from a shared or an edited folder.
    """
    if foreign := [name for name in names if _is_foreign(folder.resolve(), name.rpartition(":")[0])]:
        raise UsageError(
            expected=f"a run whose code is outside {folder}, at the full path that the training wrote down",
            received=f"one that names {shortened(foreign)}",
            do="read the code; if you trust it, move it out of the folder and write its full path in args.yaml and "
            "results.json",
        )


def _is_foreign(folder: Path, home: str) -> bool:
    if home.endswith(".py"):
        path = Path(home)
        return path != path.resolve() or folder in path.parents
    try:
        spec = importlib.util.find_spec(home.partition(".")[0])  # of a package itself, which imports nothing
    except (ImportError, ValueError):
        return False  # there is no code
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    return any(folder in (path := Path(place).resolve()).parents or path == folder for place in places if place)
