"""The code that the records of a run name: none of it is imported here, and none is run that comes with the folder."""

import importlib.util
from collections.abc import Iterator, Mapping
from importlib.machinery import all_suffixes
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
        return path != path.resolve() or _holds(folder, path)
    try:
        return any(_holds(folder, place.resolve()) for place in _places(*home.split(".")))
    except (ImportError, ValueError):
        return False  # there is no code


def _places(package: str, *parts: str) -> Iterator[Path]:
    """Yield the paths that an import of a module may read, one package after another; import nothing."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return
    if spec.origin:
        yield Path(spec.origin)
    for place in spec.submodule_search_locations or ():
        for count in range(len(parts) + 1):
            path = Path(place, *parts[:count])
            yield from (Path(f"{path}{suffix}") for suffix in ("", *all_suffixes()))


def _holds(folder: Path, path: Path) -> bool:
    """Return whether a path is in a folder or is the folder, also where a file system ignores the case of letters."""
    return any(place.exists() and place.samefile(folder) for place in (path, *path.parents))
