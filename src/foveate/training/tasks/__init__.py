"""The tasks that can be learnt. A task is one module of this folder; a module that is present is a task that is known."""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.data import AnyData, Split
from foveate.errors import UsageError, nearest
from foveate.normalisation import Normalisation
from foveate.torch_utils.modes import Held
from foveate.training.batches import Collate, Images
from foveate.training.fit_options import FitOptions

TASKS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@dataclass(frozen=True)
class Table:
    """A table for a terminal, with a sentence above it where it needs one."""

    headings: tuple[str, ...]
    rows: list[list[str]]
    caption: str = ""


@dataclass(frozen=True)
class Prediction:
    """What a prediction gave: the record for `--json`, one line for people, what was written, and the files that could not be read."""

    record: dict[str, Any]
    summary: str
    written: tuple[Path, ...]
    errors: tuple[str, ...]


class Task(Protocol):
    """What a task decides; every other file asks here instead of asking for the task's name.

    `MEASURE` names the score (higher is better, 0..1), `ALSO` further measures for a study to judge, `OF_CLASS` the
    score of one class, `OBJECT` what the boxes of an image hold. `MODELS` are the models of this task alone, None for
    all that no other task claims.

    `DEFAULTS` stand for options that were left open; for data that are drawn here `DRAWN` goes first, for planted data
    `PLANTED`, which is None where a task has none. `ONLY` are options of this task alone, each with the values that
    mean nothing to other tasks. `FIXED_VIEW`: drawn images are shown as they are drawn, at their own size.
    `NORMALISES`: images are normalised as the weights say. `VAL_OPTIONS` and `PREDICT_OPTIONS` are the options of those
    commands that this task takes, the latter with their defaults; `SUFFIXES` are those of the files that it predicts
    from.
    """

    MEASURE: str
    ALSO: tuple[str, ...]
    OF_CLASS: str
    OBJECT: str
    MODELS: tuple[str, ...] | None
    DEFAULTS: Mapping[str, Any]
    DRAWN: Mapping[str, Any]
    PLANTED: Mapping[str, Any] | None
    ONLY: Mapping[str, tuple[Any, ...]]
    FIXED_VIEW: bool
    NORMALISES: bool
    VAL_OPTIONS: tuple[str, ...]
    PREDICT_OPTIONS: Mapping[str, Any]
    SUFFIXES: frozenset[str]

    # Data and models

    def open(
        self,
        path: Path | None,
        *,
        imgsz: int | None,
        seed: int,
        augment: bool,
        on_defect: str,
        drawn: Mapping[str, Any],
        split: Split | None,
        measured: str | None,
        normalisation: Normalisation | None,
    ) -> AnyData:
        """Open the data at a path, or draw them with the options `drawn` where it is None. Raises UsageError, DataError."""
        ...

    def describe(self, data: AnyData, weights: Path | None) -> dict[str, Any]:
        """Return what data.json says about the data, with what `build` needs to know of the weights."""
        ...

    def build(self, name: str, described: Mapping[str, Any]) -> nn.Module:
        """Build a model by name, with random weights, for data as `describe` describes them."""
        ...

    def sample(self, name: str, classes: int | None, channels: int, imgsz: int | None) -> tuple[nn.Module, int | None]:
        """Build a model without data, to look at, in eval mode; return it with the side of its images, None where any will do."""
        ...

    def load(self, model: nn.Module, path: Path, classes: Sequence[str]) -> None:
        """Load weights, but no heads that were trained for other classes. Raises UsageError, DataError."""
        ...

    # Training

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

    def loss(self, model: nn.Module, batch: Any, options: FitOptions) -> Tensor:
        """Return the loss of a batch in training."""
        ...

    # Measuring

    def check(self, options: Mapping[str, Any]) -> None:
        """Check options of `VAL_OPTIONS` and `PREDICT_OPTIONS`. Raises UsageError."""
        ...

    def evaluate(self, model: nn.Module, dataset: Images, batch: int, workers: int) -> dict[str, Any]:
        """Measure a model on a data set: `{"loss", "score", "confusion", ...}`; the model's mode is kept."""
        ...

    def class_scores(self, measured: Mapping[str, Any]) -> list[float | None]:
        """Return the score of each class in what `evaluate` returned, None for a class without any example."""
        ...

    def figures(self, measured: Mapping[str, Any]) -> str:
        """Return the figures beside the score, in words."""
        ...

    def measure(
        self,
        model: nn.Module,
        dataset: Any,
        numbers: Sequence[int],
        classes: Sequence[str],
        batch: int,
        workers: int,
        **options: Any,
    ) -> dict[str, Any]:
        """Measure a model for `foveate val`; `numbers` gives the model's class for each class of the data. Raises UsageError."""
        ...

    def tables(self, measured: Mapping[str, Any], split: str, name: str) -> tuple[str, list[Table]]:
        """Return what `measure` found, as one line and tables for a terminal."""
        ...

    def write(self, measured: Mapping[str, Any], folder: Path) -> None:
        """Write further files of what `measure` found beside results.json."""
        ...

    # Gates and predictions

    def pointing_game(self, model: nn.Module, data: AnyData) -> dict[str, Any] | None:
        """Compare the gates with the true boxes of test images; None without boxes, or without a gate that has a place."""
        ...

    def keep_maps(self, model: nn.Module, data: AnyData, path: Path) -> None:
        """Write the maps of a few test images, spread over the split and the same for every model."""
        ...

    def prepare(self, described: Mapping[str, Any], pixels: NDArray[np.uint8]) -> Tensor:
        """Return an image, uint8 (H, W, 3), as the model's input (C, S, S). Raises UsageError where the training data had no files."""
        ...

    def predict(
        self,
        model: nn.Module,
        described: Mapping[str, Any],
        source: str,
        root: Path,
        names: Sequence[str],
        folder: Path,
        **options: Any,
    ) -> Prediction:
        """Predict the files `names` below `root` and write the result into `folder`; `source` names the model in the record."""
        ...


def task(name: str) -> Task:
    """Return a task by name. Raises UsageError."""
    if name not in TASKS:
        raise UsageError(expected=f"a task: {' or '.join(TASKS)}", received=repr(name), do=nearest(name, TASKS))
    return cast(Task, importlib.import_module(f"{__name__}.{name}"))


def task_of(model: str) -> str:
    """Return the name of the task that a model by this name is built for."""
    every = {name: task(name).MODELS for name in TASKS}
    claimed = [name for name, models in every.items() if models and model in models]
    return claimed[0] if claimed else next(name for name, models in every.items() if models is None)


def percent(share: float | None) -> str:
    """Return a share in 0..1 as a cell of a table under a heading with %."""
    return "–" if share is None else f"{100 * share:.1f}"
