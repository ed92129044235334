"""Train one model: the same seed gives the same batches, and a run that diverges raises an error."""

from typing import TYPE_CHECKING, Any

from torch import nn

from foveate.training.batches import Samples
from foveate.training.device import pick_device
from foveate.training.fit_options import Diverged, EpochRow, FitOptions, best_row
from foveate.training.tasks import TASKS, task

if TYPE_CHECKING:
    from foveate.training.loop import Learner, fit

__all__ = [
    "TASKS",
    "Diverged",
    "EpochRow",
    "FitOptions",
    "Learner",
    "best_row",
    "evaluate",
    "fit",
    "pick_device",
    "task",
]


def evaluate(
    model: nn.Module, dataset: Samples, batch: int = 128, workers: int = 0, name: str = "classify"
) -> dict[str, Any]:
    """Measure a model at a task on every sample of a data set: `{"loss", "score", ...}`; its modes are restored."""
    return task(name).evaluate(model, dataset, batch, workers)


def __getattr__(name: str) -> Any:
    """Import Lightning only for training (PEP 562): the import takes seconds, and measuring does not need it."""
    if name not in ("Learner", "fit"):
        raise AttributeError(f"module 'foveate.training' has no attribute {name!r}")
    from foveate.training import loop

    return getattr(loop, name)
