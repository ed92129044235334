"""Training one model: the same batches for the same seed, and a run that diverged is said to have diverged."""

from typing import TYPE_CHECKING, Any

from torch import nn

from foveate.training.batches import Images
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
    model: nn.Module, dataset: Images, batch: int = 128, workers: int = 0, name: str = "classify"
) -> dict[str, Any]:
    """Measure a model at a task on every sample of a data set: `{"loss", "score", ...}`; the model's mode is kept."""
    return task(name).evaluate(model, dataset, batch, workers)


def __getattr__(name: str) -> Any:
    """Import Lightning where something is trained (PEP 562): it takes seconds, and measuring needs none of it."""
    if name not in ("Learner", "fit"):
        raise AttributeError(f"module 'foveate.training' has no attribute {name!r}")
    from foveate.training import loop

    return getattr(loop, name)
