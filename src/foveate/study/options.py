"""What a study is asked to do: one name for each option of the command line."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foveate.data import DigitScenesOptions, DigitsOptions
from foveate.errors import UsageError
from foveate.train import TASKS, TaskName

# They say where to write and how to run, not what to compute: a resumed study may change them.
_INCIDENTAL = ("project", "name", "exist_ok", "resume", "dry_run", "jobs", "workers")
PLACES = ("data", "weights")  # where they lie decides nothing: their content is compared


# What None stands for, by task; for the embedded data, the second table goes first.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "classify": {"model": "resnet20", "where": ("residual",), "epochs": 10, "lr": 0.002, "ema": 0.0},
    "detect": {"model": "yolov4-tiny", "where": ("sites.*",), "epochs": 60, "lr": 0.002, "ema": 0.99},
}
_EMBEDDED: dict[str, dict[str, Any]] = {
    "classify": {"model": "resnet8", "epochs": 3, "lr": 0.01, "canvas": 32, "fragments": 3, "channels": 1}
    | {"train_count": 2000, "val_count": 400, "test_count": 1500},
    "detect": {"epochs": 6, "canvas": 128, "fragments": 12, "channels": 3, "train_count": 4000, "val_count": 200, "test_count": 500},
}
# Options of one task alone, with the values that the other has them at.
_OF_ONE_TASK: dict[str, dict[str, tuple[Any, ...]]] = {
    "classify": {"noise": (0.0,), "channels": (None, 3)},
    "detect": {"multi_scale": (False,), "mosaic": (True,), "on_defect": ("drop",), "freeze_epochs": (0,)},
}


@dataclass(frozen=True)
class StudyOptions:
    """The options of a study, with the defaults of the embedded one.

    `task` is "classify" or "detect".
    `data` None draws digits (`canvas`, `fragments`, `train_count`, ... are theirs). `canvas` is the side they are drawn at, `imgsz` the
    side that the model sees; to classify them, the two are one. An entry of `attention` is a mechanism, with its options and a start of
    its own if need be: "cbam", "cbam-paper", "se:reduction=8:bias=false". None means what suits the task and the data; `resolved()`
    fills them in. `seeds` is a count. `budget` is in seconds. `jobs` trials run at once, each on its share of the cores.

    Raises:
        UsageError: an option is out of range, or would do nothing for the task.
    """

    task: TaskName = "classify"
    data: Path | None = None
    model: str | None = None
    attention: tuple[str, ...] = ("se", "cbam", "cbam-paper", "coordinate")
    where: tuple[str, ...] | None = None
    start: tuple[Literal["identity", "paper"], ...] = ("identity",)
    control: bool = True
    seeds: int = 5
    epochs: int | None = None
    batch: int = 24
    lr: float | None = None
    optimizer: Literal["sgd", "adamw"] = "adamw"
    weight_decay: float = 0.01
    smoothing: float = 0.0
    patience: int | None = None
    fraction: float = 1.0
    amp: bool = False
    ema: float | None = None
    freeze_epochs: int = 0
    multi_scale: bool = False
    mosaic: bool = True
    imgsz: int | None = None
    on_defect: Literal["drop", "refuse"] = "drop"
    weights: Path | None = None
    device: str = "cpu"
    workers: int = 0
    jobs: int | None = None
    budget: float | None = None
    dry_run: bool = False
    project: Path = Path("runs")
    name: str | None = None
    exist_ok: bool = False
    resume: bool = False
    data_seed: int = 0
    canvas: int | None = None
    fragments: int | None = None
    noise: float = 0.0
    channels: int | None = None
    train_count: int | None = None
    val_count: int | None = None
    test_count: int | None = None

    def __post_init__(self) -> None:
        rules = {
            "attention": (len(self.attention) > 0 or self.control, "at least one mechanism, or the control"),
            "task": (self.task in TASKS, " or ".join(TASKS)),
            "where": (self.where is None or len(self.where) > 0, "at least one site"),
            "start": (len(self.start) > 0 and set(self.start) <= {"identity", "paper", "fast", "double", "tanh", "gentle"}, "identity, paper or identity,paper"),
            "seeds": (1 <= self.seeds <= 1000, "from 1 to 1000"),
            "jobs": (self.jobs is None or self.jobs >= 1, "at least 1"),
            "budget": (self.budget is None or 0 < self.budget < math.inf, "a positive time"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise UsageError(expected=f"{name}: {expected}", received=repr(getattr(self, name)), do=f"change --{name}")
        self._check_together()

    def _check_together(self) -> None:
        for task, options in _OF_ONE_TASK.items():
            for name, idle in options.items():
                if task != self.task and getattr(self, name) not in idle:
                    received = f"{name}={getattr(self, name)!r} with --task {self.task}, where it does nothing"
                    raise UsageError(expected=f"{name} with --task {task} alone", received=received, do="leave it out")
        if self._classifies_digits and self.canvas and self.imgsz and self.canvas != self.imgsz:
            raise UsageError(
                expected="canvas as large as imgsz: a digit is classified at the size it is drawn",
                received=f"{self.canvas} and {self.imgsz}",
                do="give one of --canvas and --imgsz",
            )

    def resolved(self) -> "StudyOptions":
        """Return the options with what was left to the task and the data filled in."""
        defaults = {**_DEFAULTS[self.task], **(_EMBEDDED[self.task] if self.data is None else {})}
        if self._classifies_digits and self.imgsz:
            defaults["canvas"] = self.imgsz
        return dataclasses.replace(self, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    def digits(self) -> DigitsOptions:
        """Return the options of the embedded data of classification."""
        return DigitsOptions(**self._drawn(), noise=self.noise, **_given(channels=self.resolved().channels))

    def scenes(self) -> DigitScenesOptions:
        """Return the options of the embedded data of detection."""
        return DigitScenesOptions(**self._drawn())

    @property
    def _classifies_digits(self) -> bool:
        return self.task == "classify" and self.data is None

    def _drawn(self) -> dict[str, Any]:
        """What the two have in common; the library's own defaults where there is no embedded data."""
        own = self.resolved()
        counts = {"train": own.train_count, "val": own.val_count, "test": own.test_count}
        return _given(canvas=own.canvas, fragments=own.fragments, **counts) | {"seed": own.data_seed}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON and YAML."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v for name, v in values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StudyOptions":
        """Read what `to_dict` wrote."""
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        paths = {name: Path(values[name]) for name in ("data", "weights", "project") if values.get(name) is not None}
        return cls(**{**values, **paths})

    def asked(self) -> dict[str, Any]:
        """Return the values that decide the results: what a resumed study must not change."""
        return {name: value for name, value in self.resolved().to_dict().items() if name not in (*_INCIDENTAL, *PLACES)}


def located(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as plain values, the paths of what is read such that they can be followed from any folder."""
    return {**values, **{name: str(Path(values[name]).resolve()) for name in PLACES if values.get(name) is not None}}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
