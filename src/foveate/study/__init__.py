"""The experiment: does attention help this model on this data, where, and at what cost?"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveate.study.options import StudyOptions
    from foveate.study.run import run_study

_HOMES = {"StudyOptions": "options", "run_study": "run"}

__all__ = ["StudyOptions", "run_study"]


def __getattr__(name: str) -> Any:
    """Import a name where it is first used (PEP 562): a worker needs no verdict, and `foveate --help` no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
