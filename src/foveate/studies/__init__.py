"""The experiment: does attention help this model on this data, where, and at what cost?"""

from typing import TYPE_CHECKING

from foveate.errors import lazy

if TYPE_CHECKING:
    from foveate.experiment.options import StudyOptions
    from foveate.studies.run import run_study

_HOMES = {"StudyOptions": "foveate.experiment.options", "run_study": "foveate.studies.run"}

__all__ = ["StudyOptions", "run_study"]

__getattr__ = lazy(__name__, _HOMES)  # a worker needs no verdict, and `foveate --help` no torch
