"""What a study is asked to do: one name for each option of the command line."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foveate.data import DigitsOptions
from foveate.errors import UsageError

# They say where to write and how to run, not what to compute: a resumed study may change them.
_INCIDENTAL = ("project", "name", "exist_ok", "resume", "dry_run", "jobs", "workers")


@dataclass(frozen=True)
class StudyOptions:
    """The options of a study, with the defaults of the embedded one.

    `data` None draws cluttered digits (`canvas`, `fragments`, `train_count`, ... are theirs). An entry of `attention` is a
    mechanism, with its options and a start of its own if need be: "cbam", "cbam-paper", "se:reduction=8:bias=false". None for
    `model`, `epochs` or `lr` means what suits the data; `resolved()` fills them in. `seeds` is a count. `budget` is in seconds.
    `jobs` trials run at once, each on its share of the cores.

    Raises:
        UsageError: an option is out of range.
    """

    data: Path | None = None
    model: str | None = None
    attention: tuple[str, ...] = ("se", "cbam", "cbam-paper", "coordinate")
    where: tuple[str, ...] = ("residual",)
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
    imgsz: int | None = None
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
    canvas: int = 32
    fragments: int = 3
    noise: float = 0.0
    channels: int = 1
    train_count: int = 2000
    val_count: int = 400
    test_count: int = 1500

    def __post_init__(self) -> None:
        rules = {
            "attention": (len(self.attention) > 0 or self.control, "at least one mechanism, or the control"),
            "where": (len(self.where) > 0, "at least one site"),
            "start": (len(self.start) > 0 and set(self.start) <= {"identity", "paper"}, "identity, paper or both"),
            "seeds": (1 <= self.seeds <= 1000, "from 1 to 1000"),
            "jobs": (self.jobs is None or self.jobs >= 1, "at least 1"),
            "budget": (self.budget is None or 0 < self.budget < math.inf, "a positive time"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise UsageError(expected=f"{name}: {expected}", received=repr(getattr(self, name)), do=f"change --{name}")

    def resolved(self) -> "StudyOptions":
        """Return the options with what was left to the data filled in: a small host and a high rate for digits."""
        digits = self.data is None
        return dataclasses.replace(
            self,
            model=self.model or ("resnet8" if digits else "resnet20"),
            epochs=(3 if digits else 10) if self.epochs is None else self.epochs,
            lr=(0.01 if digits else 0.002) if self.lr is None else self.lr,
        )

    def digits(self) -> DigitsOptions:
        """Return the options of the embedded data."""
        return DigitsOptions(
            canvas=self.imgsz or self.canvas,
            fragments=self.fragments,
            train=self.train_count,
            val=self.val_count,
            test=self.test_count,
            seed=self.data_seed,
            noise=self.noise,
            channels=self.channels,
        )

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
        return {name: value for name, value in self.resolved().to_dict().items() if name not in _INCIDENTAL}
