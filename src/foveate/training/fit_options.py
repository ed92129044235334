"""The options of a training, the figures of each epoch, and the error of a run whose numbers became infinite or NaN."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from foveate.errors import FoveateError, UsageError, nearest

OPTIMIZERS = ("sgd", "adamw")


@dataclass(frozen=True)
class FitOptions:
    """The options of a training.

    `foveate train -h` says what each option means; the texts are in `cli/flags.py`. Two are not on the command line:

    - `close_mosaic`: the number of epochs at the end without mosaics.
    - `threads`: the threads of torch; None keeps torch's setting.

    Raises:
        UsageError: an option is out of range.
    """

    epochs: int = 6
    batch: int = 64
    lr: float = 0.006
    attention_lr: float | None = None
    optimizer: Literal["sgd", "adamw"] = "adamw"
    weight_decay: float = 0.01
    smoothing: float = 0.0
    amp: bool = False
    patience: int | None = None
    fraction: float = 1.0
    ema: float = 0.0
    freeze_epochs: int = 0
    multi_scale: bool = False
    mosaic: bool = True
    close_mosaic: int = 2
    seed: int = 0
    threads: int | None = None
    workers: int = 0
    device: str = "auto"
    strategy: Literal["ddp"] | None = None
    nodes: int = 1
    devices: int = 1
    sync_batch_norm: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(
                expected="an optimizer", received=repr(self.optimizer), do=nearest(self.optimizer, OPTIMIZERS)
            )
        rules = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "lr": (0 < self.lr < float("inf"), "a positive number"),
            "attention_lr": (
                self.attention_lr is None or 0 < self.attention_lr < float("inf"),
                "a positive number, or none",
            ),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "0 or more"),
            "smoothing": (0 <= self.smoothing < 1, "from 0 to below 1"),
            "patience": (self.patience is None or self.patience >= 1, "at least 1, or none"),
            "fraction": (0 < self.fraction <= 1, "above 0, at most 1"),
            "ema": (0 <= self.ema < 1, "from 0 to below 1"),
            "freeze_epochs": (self.freeze_epochs >= 0, "0 or more"),
            "close_mosaic": (self.close_mosaic >= 0, "0 or more"),
            "seed": (0 <= self.seed < 2**63, "from 0 to below 2**63"),
            "threads": (self.threads is None or self.threads >= 1, "at least 1, or none"),
            "workers": (self.workers >= 0, "0 or more"),
            "strategy": (self.strategy in (None, "ddp"), "ddp, or none"),
            "nodes": (self.nodes >= 1, "at least 1"),
            "devices": (self.devices >= 1, "at least 1"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise UsageError(
                    expected=f"{name}: {expected}",
                    received=repr(getattr(self, name)),
                    do=f"choose {name} within that range",
                )
        if self.strategy is None and (self.nodes > 1 or self.devices > 1 or self.sync_batch_norm):
            raise UsageError(
                expected="nodes, devices and sync_batch_norm only with strategy='ddp'",
                received=f"nodes={self.nodes}, devices={self.devices}, sync_batch_norm={self.sync_batch_norm}",
                do="add strategy='ddp', or leave them out",
            )


@dataclass(frozen=True)
class EpochRow:
    """One epoch: mean losses, the task's score in 0..1, seconds of training and validation.

    `waiting` is the share of the training time in which training waited for images, 0 to 1.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_score: float
    seconds: float
    waiting: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the row as plain values for JSON or CSV."""
        return asdict(self)


def best_row(rows: list[EpochRow]) -> EpochRow:
    """Return the epoch that `fit` keeps: the one with the highest validation score; of equal ones, the lowest loss."""
    return max(rows, key=lambda row: (row.val_score, -row.val_loss, -row.epoch))


class Diverged(FoveateError):
    """A loss, gradient or weight became NaN or infinite at a step (counted from 1 within its epoch)."""

    exit_code = 4

    def __init__(self, what: str, epoch: int, step: int):
        self.what, self.epoch, self.step = what, epoch, step
        super().__init__(
            expected=f"a finite {what}",
            received=f"NaN or infinity in epoch {epoch}, step {step}",
            do="lower the learning rate (--lr), or look for damaged images",
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.what, self.epoch, self.step)
