"""What a study is asked to do: one name for each option of the command line."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foveate.data import DigitScenesOptions, DigitsOptions, PlantedKind, PlantedOptions, planted_kind
from foveate.data.planted import SIDE
from foveate.errors import UsageError
from foveate.experiment.seeds import seed_range
from foveate.models import own
from foveate.training import TASKS, TaskName, pick_device

# They say where to write and how to run, not what to compute: a resumed study may change them.
_INCIDENTAL = ("project", "name", "exist_ok", "resume", "dry_run", "jobs", "workers", "credit")
PLACES = ("data", "weights")  # where they lie decides nothing: their content is compared


# What None stands for, by task; for embedded and for planted data, their own tables go first.
_ATTENTION = ("se", "cbam", "cbam-paper", "coordinate")
_DEFAULTS: dict[str, dict[str, Any]] = {
    "classify": {"attention": _ATTENTION, "model": "resnet20", "where": ("residual",), "epochs": 10, "batch": 24, "lr": 0.002, "ema": 0.0},
    "detect": {"attention": _ATTENTION, "model": "yolov4-tiny", "where": ("sites.*",), "epochs": 60, "batch": 24, "lr": 0.002, "ema": 0.99},
}
_EMBEDDED: dict[str, dict[str, Any]] = {
    "classify": {"model": "resnet8", "epochs": 3, "lr": 0.01, "canvas": 32, "fragments": 3, "channels": 1}
    | {"train_count": 2000, "val_count": 400, "test_count": 1500},
    "detect": {"epochs": 6, "canvas": 128, "fragments": 12, "channels": 3, "train_count": 4000, "val_count": 200, "test_count": 500},
}
_PLANTED: dict[str, Any] = {"model": "pixelnet", "attention": ("se:reduction=2", "spatial"), "where": ("features",)}
_PLANTED |= {"epochs": 8, "batch": 50, "lr": 0.02}
# Options of data that are drawn here, with the values that leave them alone. Of planted data only the counts can be chosen.
_DRAWING: dict[str, Any] = {"canvas": None, "fragments": None, "noise": 0.0, "channels": None}
_COUNTS: dict[str, Any] = {"train_count": None, "val_count": None, "test_count": None}
# Options of one task alone, with the values that the other has them at.
_OF_ONE_TASK: dict[str, dict[str, tuple[Any, ...]]] = {
    "classify": {"noise": (0.0,), "channels": (None, 3)},
    "detect": {"multi_scale": (False,), "mosaic": (True,), "on_defect": ("drop",)},
}


@dataclass(frozen=True)
class StudyOptions:
    """The options of a study, with the defaults of the embedded one.

    `task` is "classify" or "detect".
    `data` is a folder, or "planted:where", "planted:what" or "planted:neither" for data whose truth is known (`foveate.data.planted`);
    None draws digits (`canvas`, `fragments`, `train_count`, ... are theirs). `canvas` is the side they are drawn at, `imgsz` the
    side that the model sees; to classify them, the two are one. An entry of `attention` is a mechanism, with its options and a start of
    its own if need be: "cbam", "cbam-paper", "se:reduction=8:bias=false". None means what suits the task and the data; `resolved()`
    fills them in. `seeds` is a count, or a range such as "3..20": seeds are added one by one until every arm is decided.
    `budget` is in seconds. `jobs` trials run at once, each on its share of the cores; None is one a
    core, or one a GPU where `device` is (or, with "auto", finds) "cuda".
    `lr` is the rate of the host and its head, `attention_lr` that of what an arm attaches, the control's layers too; None for the same.
    `freeze` lets only what is attached and the head learn, of the plain host the head alone. `augment` shows training photos in random
    views.
    `margin` is in points: a difference within it does not matter. `credit` names source and licence of the pictures that the report
    shows.

    Raises:
        UsageError: an option is out of range, or would do nothing for the task.
    """

    task: TaskName = "classify"
    data: Path | None = None
    model: str | None = None
    attention: tuple[str, ...] | None = None
    where: tuple[str, ...] | None = None
    start: tuple[Literal["identity", "paper"], ...] = ("identity",)
    control: bool = True
    seeds: int | str = 5
    margin: float = 1.0
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    attention_lr: float | None = None
    optimizer: Literal["sgd", "adamw"] = "adamw"
    weight_decay: float = 0.01
    smoothing: float = 0.0
    patience: int | None = None
    fraction: float = 1.0
    amp: bool = False
    ema: float | None = None
    freeze: bool = False
    freeze_epochs: int = 0
    multi_scale: bool = False
    augment: bool = True
    mosaic: bool = True
    imgsz: int | None = None
    on_defect: Literal["drop", "refuse"] = "drop"
    weights: Path | None = None
    device: str = "auto"
    workers: int = 0
    jobs: int | None = None
    budget: float | None = None
    dry_run: bool = False
    project: Path = Path("runs")
    name: str | None = None
    exist_ok: bool = False
    resume: bool = False
    credit: str | None = None
    data_seed: int = 0
    canvas: int | None = None
    fragments: int | None = None
    noise: float = 0.0
    channels: int | None = None
    train_count: int | None = None
    val_count: int | None = None
    test_count: int | None = None

    def __post_init__(self) -> None:
        for place in ("data", "weights", "project"):
            object.__setattr__(self, place, getattr(self, place) and Path(getattr(self, place)))
        rules = {
            "attention": (self.attention is None or len(self.attention) > 0 or self.control, "at least one mechanism, or the control"),
            "task": (self.task in TASKS, " or ".join(TASKS)),
            "where": (self.where is None or len(self.where) > 0, "at least one site"),
            "start": (len(self.start) > 0 and set(self.start) <= {"identity", "paper"}, "identity, paper or identity,paper"),
            "margin": (0 < self.margin <= 100, "above 0 and at most 100 points"),
            "jobs": (self.jobs is None or self.jobs >= 1, "at least 1"),
            "budget": (self.budget is None or 0 < self.budget < math.inf, "a positive time"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise UsageError(expected=f"{name}: {expected}", received=repr(getattr(self, name)), do=f"change --{name}")
        least, most = self.seed_range
        object.__setattr__(self, "seeds", least if least == most else f"{least}..{most}")
        self._check_together()

    def _check_together(self) -> None:
        for task, options in _OF_ONE_TASK.items():
            for name, idle in options.items():
                if task != self.task and getattr(self, name) not in idle:
                    received = f"{name}={getattr(self, name)!r} with --task {self.task}, where it does nothing"
                    raise UsageError(expected=f"{name} with --task {task} alone", received=received, do="leave it out")
        if (self._classifies_digits or self.planted) and not self.augment:
            raise UsageError(
                expected="augment for photos, or with --task detect",
                received="--no-augment for data that are drawn here, which are shown as they are",
                do="leave it out",
            )
        if self.planted:
            self._check_planted()
        elif self.data is not None:
            self._refuse_given({**_DRAWING, **_COUNTS}, "data that are drawn here", "which are not drawn here")
        if self.freeze and self.freeze_epochs:
            raise UsageError(
                expected="one of --freeze, for the whole training, and --freeze-epochs, for its first epochs",
                received=f"--freeze and --freeze-epochs {self.freeze_epochs}",
                do="leave one of them out",
            )
        if self._classifies_digits and self.canvas and self.imgsz and self.canvas != self.imgsz:
            raise UsageError(
                expected="canvas as large as imgsz: a digit is classified at the size it is drawn",
                received=f"{self.canvas} and {self.imgsz}",
                do="give one of --canvas and --imgsz",
            )

    def _check_planted(self) -> None:
        if self.task != "classify":
            raise UsageError(expected="planted data with --task classify", received=f"--task {self.task}", do="leave --task out")
        self._refuse_given(_DRAWING, "the embedded digits", "whose pictures are all drawn alike")
        if self.imgsz not in (None, SIDE):
            received = f"--imgsz {self.imgsz} for {self.data}"
            raise UsageError(expected=f"planted data at their own size, {SIDE} pixels", received=received, do="leave --imgsz out")

    def _refuse_given(self, idle: Mapping[str, Any], of: str, here: str) -> None:
        """Refuse options that do nothing for these data."""
        if given := [name for name, value in idle.items() if getattr(self, name) != value]:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(expected=f"{flags} with {of} alone", received=f"{flags} for {self.data}, {here}", do=f"leave {flags} out")

    def on_folder(self, folder: Path) -> "StudyOptions":
        """Return the options for a folder of pictures instead, without those that only drawn data take."""
        return dataclasses.replace(self, data=folder, **_DRAWING, **_COUNTS)

    def resolved(self) -> "StudyOptions":
        """Return the options with what was left to the task and the data filled in."""
        device = pick_device(self.device) if self.device == "auto" else self.device
        own = _EMBEDDED[self.task] if self.data is None else _PLANTED if self.planted else {}
        defaults = {**_DEFAULTS[self.task], **own}
        if self._classifies_digits and self.imgsz:
            defaults["canvas"] = self.imgsz
        return dataclasses.replace(self, device=device, **{name: value for name, value in defaults.items() if getattr(self, name) is None})

    @property
    def seed_range(self) -> tuple[int, int]:
        """The least and the most seeds of each arm, equal where their number is fixed."""
        return seed_range(self.seeds)

    def digits(self) -> DigitsOptions:
        """Return the options of the embedded data of classification."""
        return DigitsOptions(**self._drawn(), noise=self.noise, **_given(channels=self.resolved().channels))

    def scenes(self) -> DigitScenesOptions:
        """Return the options of the embedded data of detection."""
        return DigitScenesOptions(**self._drawn())

    @property
    def planted(self) -> PlantedKind | None:
        """Return which planted data are asked for, None for others. Raises UsageError for an unknown kind."""
        return planted_kind(self.data)

    def planted_options(self) -> PlantedOptions | None:
        """Return the options of the planted data, None for others."""
        return None if self.planted is None else PlantedOptions(self.planted, **self._counts(), seed=self.data_seed)

    @property
    def _classifies_digits(self) -> bool:
        return self.task == "classify" and self.data is None

    def _drawn(self) -> dict[str, Any]:
        """What the two have in common; the library's own defaults where there is no embedded data."""
        own = self.resolved()
        return _given(canvas=own.canvas, fragments=own.fragments) | own._counts() | {"seed": own.data_seed}

    def _counts(self) -> dict[str, int]:
        return _given(train=self.train_count, val=self.val_count, test=self.test_count)

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
        decisive = {name: value for name, value in self.resolved().to_dict().items() if name not in (*_INCIDENTAL, *PLACES)}
        return {**decisive, "model": own.short_name(decisive["model"])}


def located(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as plain values, the paths of what is read such that they can be followed from any folder."""
    places = {name: values[name] for name in PLACES if values.get(name) is not None and planted_kind(values[name]) is None}
    found = {name: str(Path(path).resolve()) for name, path in places.items()}
    return {**values, **found, **({"model": own.located(values["model"])} if own.is_own(values.get("model")) else {})}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
