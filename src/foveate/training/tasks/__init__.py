"""The tasks that models can learn; each module in this folder is a task."""

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
from foveate.data.images.decode import Greys
from foveate.data.images.working_copies import CacheOptions
from foveate.errors import UsageError, nearest
from foveate.gates.maps import Maps
from foveate.normalisation import Normalisation
from foveate.torch_utils.modes import Freezable
from foveate.training.batches import Collate, Samples
from foveate.training.fit_options import FitOptions

TASKS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


@dataclass(frozen=True)
class Table:
    """A table for a terminal, with an optional sentence above it."""

    headings: tuple[str, ...]
    rows: list[list[str]]
    caption: str = ""


@dataclass(frozen=True)
class Prediction:
    """The result of a prediction: the record for `--json`, a line for users, the files written and those unreadable."""

    record: dict[str, Any]
    summary: str
    written: tuple[Path, ...]
    errors: tuple[str, ...]


class Task(Protocol):
    """What differs between tasks; other files ask a task for it and never for its name.

    - `MEASURE`: the name of the score (higher is better, 0..1); `ALSO`: further measures that a study judges;
      `OF_CLASS`: the name of the score of one class; `OBJECT`: what a box of an image holds; `NETWORK`: what a model of
      the task is called; `PIPELINE`: what the Hugging Face Hub calls the task.
    - `MODELS`: the models that only this task can use; None stands for all models that no other task lists.
    - `DEFAULTS`: values of options that the user left out. For generated data `GENERATED` has precedence, for planted
      data `PLANTED`, which is None if the task has no planted data.
    - `ONLY`: options that only this task has, each with the values that other tasks accept as "not given".
    - `FIXED_VIEW`: whether generated images have no augmentation and no other size.
    - `NORMALISES`: whether images are normalised as the weights require.
    - `VAL_OPTIONS`, `PREDICT_OPTIONS`: the options of those commands that this task has, the latter with defaults;
      `SUFFIXES`: of the files that it predicts from.
    """

    MEASURE: str
    ALSO: tuple[str, ...]
    OF_CLASS: str
    OBJECT: str
    NETWORK: str
    PIPELINE: str
    MODELS: tuple[str, ...] | None
    DEFAULTS: Mapping[str, Any]
    GENERATED: Mapping[str, Any]
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
        generated: Mapping[str, Any],
        split: Split | None,
        measured: str | None,
        normalisation: Normalisation | None,
        greys: Greys | None,
        cache: CacheOptions,
    ) -> AnyData:
        """Open the data at a path; None generates them with the options `generated`. Raises UsageError, DataError."""
        ...

    def describe(self, data: AnyData, weights: Path | None) -> dict[str, Any]:
        """Return the content of data.json: the data, and what `build` needs to know about the weights."""
        ...

    def build(self, name: str, described: Mapping[str, Any]) -> nn.Module:
        """Build a model by name, with random weights, for data as `describe` describes them."""
        ...

    def sample(self, name: str, classes: int | None, channels: int, imgsz: int | None) -> tuple[nn.Module, int | None]:
        """Build a model in eval mode without data; return it with the side of its images, None if any side works."""
        ...

    def load(self, model: nn.Module, path: Path, classes: Sequence[str]) -> None:
        """Load weights, except heads that were trained for other classes. Raises UsageError, DataError."""
        ...

    # Training

    def collate_for(self, model: nn.Module, options: FitOptions) -> Collate | None:
        """Return the function that makes training batches for a model; None for torch's own."""
        ...

    def begin_epoch(self, dataset: Any, epoch: int, options: FitOptions) -> None:
        """Prepare the training set for an epoch, counted from 0."""
        ...

    def smallest(self, shape: tuple[int, ...], options: FitOptions) -> tuple[int, ...]:
        """Return the shape (C, H, W) of the smallest image that a training on images of this shape may use."""
        ...

    def backbone(self, model: nn.Module, classes: int) -> Freezable:
        """Return the part that `--freeze-epochs` freezes at first. Raises UsageError if the model has no such part."""
        ...

    def loss(self, model: nn.Module, batch: Any, options: FitOptions) -> Tensor:
        """Return the loss of a batch in training."""
        ...

    # Measuring

    def check(self, options: Mapping[str, Any]) -> None:
        """Check options of `VAL_OPTIONS` and `PREDICT_OPTIONS`. Raises UsageError."""
        ...

    def evaluate(self, model: nn.Module, dataset: Samples, batch: int, workers: int) -> dict[str, Any]:
        """Measure a model on a data set: `{"loss", "score", "confusion", ...}`; the model's modes are restored."""
        ...

    def class_scores(self, measured: Mapping[str, Any]) -> list[float | None]:
        """Return the score of each class from the result of `evaluate`, None for a class without examples."""
        ...

    def figures(self, measured: Mapping[str, Any]) -> str:
        """Return a phrase with the figures beside the score."""
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
        """Measure a model for `foveate val`; `numbers` maps the classes of the data to those of the model.

        Raises UsageError.
        """
        ...

    def tables(self, measured: Mapping[str, Any], split: str, name: str) -> tuple[str, list[Table]]:
        """Return the result of `measure` as one line and tables for a terminal."""
        ...

    def write(self, measured: Mapping[str, Any], folder: Path) -> None:
        """Write further files of the result of `measure` beside results.json."""
        ...

    # Gates and predictions

    def pointing_game(self, model: nn.Module, data: AnyData) -> dict[str, Any] | None:
        """Play the pointing game on test images; None without ground-truth boxes or without gates over positions."""
        ...

    def maps(self, model: nn.Module, data: AnyData, cam: bool | Mapping[str, int] = False) -> Maps:
        """Return the attention maps of a few test images, spread over the split and the same for every model.

        `cam` adds Grad-CAM, where the task has it.
        """
        ...

    def placed(self, described: Mapping[str, Any], boxes: NDArray, size: tuple[int, int]) -> NDArray:
        """Return boxes (M, 4) in an image of `size` (width, height) as boxes in the input that `prepare` makes."""
        ...

    def prepare(self, described: Mapping[str, Any], pixels: NDArray[np.uint8]) -> Tensor:
        """Return an image, uint8 (H, W, 3), as the model's input (C, S, S).

        Raises UsageError if the training data were not files.
        """
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
        """Predict the files `names` in `root` and write the result; `source` names the model in the record."""
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
    """Return a share in 0..1 as the text of a table cell in percent, without the sign."""
    return "–" if share is None else f"{100 * share:.1f}"
