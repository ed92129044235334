"""The options of a study or a training: as a user asks for them, and resolved, with nothing left open."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from foveate import user_code
from foveate.data import PlantedKind, planted_kind
from foveate.data.images.working_copies import CacheKind, CacheOptions
from foveate.data.planted import SIDE
from foveate.errors import UsageError
from foveate.experiment import entries
from foveate.experiment.seeds import seed_range
from foveate.storage import checked_place
from foveate.training import FitOptions, pick_device
from foveate.training.tasks import TASKS, Task, task

# Options that say where to write and how to run, not what to compute: a resumed study may change them.
_CACHE = {"cache": "ram", "cache_size": None}
CLUSTER = {"address": None, "cpus_per_trial": 1, "gpus_per_trial": 0.0, "retries": 2, "results": None}
_INCIDENTAL = ("project", "name", "exist_ok", "resume", "dry_run", "jobs", "workers", "credit", "engine")
_INCIDENTAL += (*_CACHE, *CLUSTER)
PLACES = ("data", "weights")  # a resumed study may find them elsewhere: their content is compared

ANYWHERE = "**"  # the pattern of all modules, of which `replace` then takes those of its class

# Options of generated data with their defaults. Planted data take only the counts.
_GENERATED: dict[str, Any] = {"canvas": None, "fragments": None, "noise": 0.0, "channels": None}
_COUNTS = {"train_count": "train", "val_count": "val", "test_count": "test"}  # with the names that the data use


@dataclass(frozen=True)
class StudyOptions:
    """The options of a study; the defaults are those of the study on embedded digits.

    `foveate study -h` says what each option means; the texts are in `cli/flags.py`. None means the default of the
    task and the data, which `resolve()` fills in. `budget` is in seconds.

    Raises:
        UsageError: an option is out of range, or would do nothing for the task.
    """

    task: str = "classify"
    data: Path | None = None
    model: str | None = None
    attention: tuple[str, ...] | None = None
    where: tuple[str, ...] | None = None
    replace: str | None = None
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
    on_defect: Literal["drop", "refuse"] | None = None
    weights: Path | None = None
    device: str = "auto"
    workers: int = 0
    cache: CacheKind = "ram"
    cache_size: float | None = None
    strategy: Literal["ddp"] | None = None
    nodes: int = 1
    devices: int = 1
    sync_batch_norm: bool = False
    jobs: int | None = None
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    cpus_per_trial: int = 1
    gpus_per_trial: float = 0.0
    retries: int = 2
    results: str | None = None
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
        object.__setattr__(self, "results", self.results and checked_place(str(self.results)))
        for several in ("attention", "where", "start"):
            object.__setattr__(self, several, _listed(getattr(self, several)))
        rules = {
            "attention": (
                self.attention is None or len(self.attention) > 0 or self.control,
                "at least one mechanism, or the control",
            ),
            "task": (self.task in TASKS, " or ".join(TASKS)),
            "where": (self.where is None or len(self.where) > 0, "at least one site"),
            "start": (
                len(self.start) > 0 and set(self.start) <= {"identity", "paper"},
                "identity, paper or identity,paper",
            ),
            "margin": (0 < self.margin <= 100, "above 0 and at most 100 points"),
            "jobs": (self.jobs is None or self.jobs >= 1, "at least 1"),
            "engine": (self.engine in ("local", "ray"), "local or ray"),
            "cpus-per-trial": (self.cpus_per_trial >= 1, "at least 1"),
            "gpus-per-trial": (0 <= self.gpus_per_trial < math.inf, "0 or more"),
            "retries": (self.retries >= 0, "0 or more"),
            "budget": (self.budget is None or 0 < self.budget < math.inf, "a positive time"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                value = getattr(self, name.replace("-", "_"))
                raise UsageError(expected=f"{name}: {expected}", received=repr(value), do=f"change --{name}")
        least, most = self.seed_range
        object.__setattr__(self, "seeds", least if least == most else f"{least}..{most}")
        self._check_together()

    def _check_together(self) -> None:
        if self.engine != "ray":
            self._refuse_given(CLUSTER, "--engine ray", "where the trials run in processes of this machine")
        elif self.jobs is not None:
            raise UsageError(
                expected="--cpus-per-trial, by which a cluster decides how many trials run at the same time",
                received=f"--jobs {self.jobs} with --engine ray",
                do="leave --jobs out",
            )
        elif self.device != "auto" and (self.device == "cpu") == bool(self.gpus_per_trial):
            raise UsageError(
                expected="--gpus-per-trial with --device cuda, and without it --device cpu",
                received=f"--device {self.device} --gpus-per-trial {self.gpus_per_trial:g}",
                do="leave --device out: the trials then use the GPUs that --gpus-per-trial gives them",
            )
        for name in TASKS:
            for option, idle in task(name).ONLY.items():
                if name != self.task and getattr(self, option) not in idle:
                    received = f"{option}={getattr(self, option)!r} with --task {self.task}, where it does nothing"
                    raise UsageError(expected=f"{option} only with --task {name}", received=received, do="leave it out")
        if (self.planted or (self.data is None and self.what.FIXED_VIEW)) and not self.augment:
            raise UsageError(
                expected="augment for a folder of images, or with --task detect",
                received="--no-augment for generated images to classify, which are never augmented",
                do="leave it out",
            )
        CacheOptions(self.cache, self.cache_size)
        if self.data is None or self.planted:
            self._refuse_given(_CACHE, "a folder of images", "as generated images are in memory anyway")
        if self.planted:
            self._check_planted()
        elif self.data is not None:
            self._refuse_given({**_GENERATED, **dict.fromkeys(_COUNTS)}, "generated data", "which are not generated")
        if self.freeze and self.freeze_epochs:
            raise UsageError(
                expected="one of --freeze, for the whole training, and --freeze-epochs, for its first epochs",
                received=f"--freeze and --freeze-epochs {self.freeze_epochs}",
                do="leave one of them out",
            )
        if self.data is None and self.what.FIXED_VIEW and self.canvas and self.imgsz and self.canvas != self.imgsz:
            raise UsageError(
                expected="canvas equal to imgsz: digits are classified at the size at which they are generated",
                received=f"{self.canvas} and {self.imgsz}",
                do="give one of --canvas and --imgsz",
            )

    def _check_planted(self) -> None:
        if self.what.PLANTED is None:
            raise UsageError(
                expected="planted data with --task classify", received=f"--task {self.task}", do="leave --task out"
            )
        self._refuse_given(_GENERATED, "the embedded digits", "whose images have no such options")
        if self.imgsz not in (None, SIDE):
            received = f"--imgsz {self.imgsz} for {self.data}"
            raise UsageError(
                expected=f"planted data at their own size, {SIDE} pixels", received=received, do="leave --imgsz out"
            )

    def _refuse_given(self, idle: Mapping[str, Any], of: str, here: str) -> None:
        """Refuse options that do nothing for these data."""
        if given := [name for name, value in idle.items() if getattr(self, name) != value]:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(
                expected=f"{flags} only with {of}",
                received=f"{flags}{f' for {self.data}' if self.data and of != '--engine ray' else ''}, {here}",
                do=f"leave {flags} out",
            )

    def on_folder(self, folder: Path) -> Self:
        """Return the options for a folder of images instead, without the options of generated data."""
        return dataclasses.replace(self, data=folder, **_GENERATED, **dict.fromkeys(_COUNTS))

    def resolve(self) -> "Resolved":
        """Return the options with the defaults of the task and the data filled in."""
        device = self.device
        if device == "auto":
            of_trials = "cuda" if self.gpus_per_trial else "cpu"
            device = of_trials if self.engine == "ray" else pick_device("auto")
        first = self.what.GENERATED if self.data is None else (self.what.PLANTED or {}) if self.planted else {}
        defaults = {**self.what.DEFAULTS, **first}
        if self.replace is not None:
            defaults["where"] = (ANYWHERE,)
        if self.data is None and self.what.FIXED_VIEW and self.imgsz:
            defaults["canvas"] = self.imgsz
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        left = {name: value for name, value in defaults.items() if values[name] is None}
        return Resolved(**{**values, **left, "device": device})

    @property
    def what(self) -> Task:
        """The task."""
        return task(self.task)

    @property
    def seed_range(self) -> tuple[int, int]:
        """The minimum and maximum number of seeds of each arm, equal if the number is fixed."""
        return seed_range(self.seeds)

    @property
    def planted(self) -> PlantedKind | None:
        """The kind of planted data, None for other data.

        Raises UsageError for an unknown kind.
        """
        return planted_kind(self.data)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON and YAML."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: str(v) if isinstance(v, Path) else list(v) if isinstance(v, tuple) else v for name, v in values}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what `to_dict` wrote."""
        return cls(**values)


class Resolved(StudyOptions):
    """Options with all defaults of the task filled in, made by `StudyOptions.resolve`.

    Only `imgsz` may still be None, as the data decide it.
    """

    model: str
    attention: tuple[str, ...]
    where: tuple[str, ...]
    epochs: int
    batch: int
    lr: float
    ema: float
    on_defect: Literal["drop", "refuse"]

    def asked(self) -> dict[str, Any]:
        """Return the options that decide the results, which a resumed study must not change."""
        decisive = {name: value for name, value in self.to_dict().items() if name not in (*_INCIDENTAL, *PLACES)}
        return without_folders(decisive)

    def fit(self, seed: int, threads: int | None) -> FitOptions:
        """Return the options for training a model, which are the same in every arm."""
        ours = {field.name for field in dataclasses.fields(FitOptions)} & {
            field.name for field in dataclasses.fields(self)
        }
        return FitOptions(**{name: getattr(self, name) for name in ours}, seed=seed, threads=threads)

    @property
    def generated(self) -> dict[str, Any]:
        """The options of generated data that are not None, by the names that the data use."""
        shapes = {} if self.planted else {name: getattr(self, name) for name in _GENERATED}
        counts = {name: getattr(self, option) for option, name in _COUNTS.items()}
        return {name: value for name, value in {**shapes, **counts}.items() if value is not None}


def located(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as plain values, with absolute paths of the files that are read."""
    places = {
        name: values[name] for name in PLACES if values.get(name) is not None and planted_kind(values[name]) is None
    }
    found = {name: str(Path(path).resolve()) for name, path in places.items()}
    return {**_renamed(values, user_code.located, entries.located), **found}


def moved(options: Resolved, places: Mapping[str, str]) -> Resolved:
    """Return the options with other places of files and folders that they read, by the absolute path of the old one."""

    def name(text: str) -> str:
        return moved_name(text, places)

    values = _renamed(options.to_dict(), name, lambda entry: entries.renamed(entry, name))
    read = {place: places.get(values[place], values[place]) for place in PLACES}
    return Resolved.from_dict({**values, **read})


def moved_name(name: str, places: Mapping[str, str]) -> str:
    """Return the name of the user's own code, FILE.py:NAME, with the new place of its file; other names as they are."""
    home, colon, last = name.rpartition(":")
    return f"{places.get(home, home)}{colon}{last}"


def without_folders(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as plain values, in which the user's own code is named without its folder."""
    return _renamed(values, user_code.short_name, entries.without_folders)


def _renamed(values: Mapping[str, Any], model: Callable[[str], str], attention: Callable[[str], str]) -> dict[str, Any]:
    new = dict(values)
    if new.get("model"):
        new["model"] = model(new["model"])
    if isinstance(new.get("attention"), str):
        new["attention"] = attention(new["attention"])
    elif new.get("attention"):
        new["attention"] = [attention(entry) for entry in new["attention"]]
    return new


def _listed(value: Any) -> tuple[str, ...] | None:
    """Return the entries of a comma-separated text or of a list.

    >>> _listed("se, cbam"), _listed(["se"]), _listed(None)
    (('se', 'cbam'), ('se',), None)
    """
    if isinstance(value, str):
        return tuple(entry for part in value.split(",") if (entry := part.strip()))
    return None if value is None else tuple(value)
