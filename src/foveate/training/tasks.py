"""What can be learnt: each task is a module of this folder with a loss and a measure."""

import importlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol, cast, get_args

from torch import Tensor, nn

from foveate.errors import UsageError, nearest
from foveate.torch_utils.modes import Held
from foveate.training.batches import Collate, Images
from foveate.training.fit_options import FitOptions

TaskName = Literal["classify", "detect"]
TASKS = get_args(TaskName)


class Task(Protocol):
    """A task: `MEASURE` names the score (higher is better, 0..1), `ALSO` what else `evaluate` gives that a study should judge.

    `OF_CLASS` names the score of one class.
    """

    MEASURE: str
    ALSO: tuple[str, ...]
    OF_CLASS: str

    def collate_for(self, model: nn.Module, options: FitOptions) -> Collate | None:
        """Return what makes a batch for the training of a model; None as torch does."""
        ...

    def begin_epoch(self, dataset: Any, epoch: int, options: FitOptions) -> None:
        """Tell the training set that an epoch, counted from 0, begins."""
        ...

    def smallest(self, shape: tuple[int, ...], options: FitOptions) -> tuple[int, ...]:
        """Return the shape (C, H, W) of the smallest image that a training on images of a shape may show."""
        ...

    def backbone(self, model: nn.Module, classes: int) -> Held:
        """Return what `--freeze-epochs` holds still at first. Raises UsageError where a model has no such part."""
        ...

    def loss(self, model: nn.Module, batch: Any, options: FitOptions, step: int) -> Tensor:
        """Return the loss of a batch in training; `step` counts batches from 0 over the whole run."""
        ...

    def evaluate(self, model: nn.Module, dataset: Images, batch: int, workers: int) -> dict[str, Any]:
        """Measure a model on a data set: `{"loss", "score", "confusion", ...}`; the model's mode is kept."""
        ...

    def class_scores(self, measured: Mapping[str, Any]) -> list[float | None]:
        """Return the score of each class in what `evaluate` returned, None where there is nothing to find."""
        ...


def task(name: str) -> Task:
    """Return a task by name. Raises UsageError."""
    if name not in TASKS:
        raise UsageError(expected=f"a task: {' or '.join(TASKS)}", received=repr(name), do=nearest(name, TASKS))
    return cast(Task, importlib.import_module(f"foveate.training.{name}"))
