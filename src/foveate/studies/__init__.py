"""The experiment: does attention help this model on this data, where, and at what cost?"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveate.experiment.options import StudyOptions
    from foveate.studies.run import run_study

_HOMES = {"StudyOptions": "foveate.experiment.options", "run_study": "foveate.studies.run"}

__all__ = ["StudyOptions", "run_study"]


def __getattr__(name: str) -> Any:
    """Import a name where it is first used (PEP 562): a worker needs no verdict, and `foveate --help` no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from foveate.errors import imported

    return getattr(imported(_HOMES[name]), name)
