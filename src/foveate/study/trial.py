"""One trial: one arm with one seed, trained, measured and written down."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from foveate import files
from foveate.data import Data, open_data
from foveate.errors import DataError
from foveate.explain.gaze import gaze
from foveate.explain.maps import save_maps
from foveate.models import save_weights
from foveate.study.arms import Arm, Widths, build_host, dress
from foveate.study.options import StudyOptions
from foveate.train import Diverged, EpochRow, FitOptions, best_row, evaluate

_PICTURED = 8  # images whose maps are kept
_GAZED = 512  # images whose gates are held against the true boxes


@dataclass(frozen=True)
class Task:
    """All that a process needs to run one trial. `pictured` trials keep the maps of a few images."""

    folder: Path
    options: StudyOptions
    arm: Arm
    seed: int
    widths: dict[str, Widths]
    threads: int
    pictured: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the task, ready for JSON."""
        return {
            **vars(self),
            "folder": str(self.folder),
            "options": self.options.to_dict(),
            "arm": self.arm.to_dict(),
            "widths": {where: list(widths.items()) for where, widths in self.widths.items()},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Task":
        """Read what `to_dict` wrote."""
        return cls(
            **{
                **values,
                "folder": Path(values["folder"]),
                "options": StudyOptions.from_dict(values["options"]),
                "arm": Arm(**values["arm"]),
                "widths": {where: dict(pairs) for where, pairs in values["widths"].items()},
            }
        )


def run_trial(task: Task, on_epoch: Callable[[EpochRow], None] | None = None) -> dict[str, Any]:
    """Run a trial and write its folder, trial.json last; return what that holds. Only an interruption is raised."""
    began = time.perf_counter()
    rows: list[EpochRow] = []

    def note(row: EpochRow) -> None:
        rows.append(row)
        if on_epoch:
            on_epoch(row)

    try:
        from foveate.train import fit

        torch.set_num_threads(task.threads)
        data = open_study_data(task.options)
        model = build_model(task, data)
        fit(model, data, fit_options(task.options, task.seed, task.threads), note)
        outcome = _measure(task, model, data, rows)
    except Diverged as error:
        outcome = {"status": "diverged", "error": f"{error.what} became NaN or infinite in epoch {error.epoch}, step {error.step}"}
    except DataError as error:
        told = {"expected": error.expected, "received": error.received, "do": error.do}
        outcome = {"status": "failed", "error": f"DataError: {error}", "data_error": told}
    except Exception as error:
        outcome = {"status": "failed", "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    trial = {**blank(task), **outcome, "history": [row.to_dict() for row in rows], "seconds": time.perf_counter() - began}
    write_trial(task.folder, trial)
    return trial


def blank(task: Task) -> dict[str, Any]:
    """Return the keys of trial.json, as they are for a trial that gave nothing."""
    empty = ("sha256", "best_epoch", "val_accuracy", "test_accuracy", "test_loss", "test_correct", "test_count", "gaze")
    return {
        "arm": task.arm.slug,
        "seed": task.seed,
        "status": "failed",
        "error": None,
        "history": [],
        **dict.fromkeys(empty),
        "seconds": 0.0,
    }


def write_trial(folder: Path, trial: dict[str, Any]) -> None:
    """Write history.csv, then trial.json, whose presence means that the trial is over."""
    files.write_csv(folder / "history.csv", trial["history"], list(EpochRow.__annotations__))
    files.write_json(folder / "trial.json", trial)


def build_model(task: Task, data: Data) -> nn.Module:
    """Build the host of the task's seed with what its arm attaches."""
    model = build_host(task.options, len(data.classes), data.channels, data.size, task.seed)
    dress(model, task.arm, task.seed, (1, data.channels, data.size, data.size), task.widths)
    return model


def fit_options(options: StudyOptions, seed: int, threads: int) -> FitOptions:
    """Return how the study trains: the same in every arm."""
    options = options.resolved()
    names = ("epochs", "batch", "lr", "optimizer", "weight_decay", "smoothing", "amp", "patience", "fraction", "workers", "device")
    return FitOptions(**{name: getattr(options, name) for name in names}, seed=seed, threads=threads)


def open_study_data(options: StudyOptions) -> Data:
    """Open the study's data; a process opens the same data once."""
    return _open(options.data, options.imgsz, options.data_seed, options.digits())


_open = lru_cache(maxsize=1)(lambda path, imgsz, seed, digits: open_data(path, imgsz=imgsz, seed=seed, digits=digits))


def _measure(task: Task, model: nn.Module, data: Data, rows: list[EpochRow]) -> dict[str, Any]:
    model.to(task.options.device)
    best, test = best_row(rows), evaluate(model, data.test, task.options.batch, task.options.workers)
    digest = save_weights(model, task.folder / "weights" / "best.safetensors")
    if task.pictured and task.arm.is_attention:
        _picture(task, model, data)
    return {
        "status": "done",
        "sha256": digest,
        "best_epoch": best.epoch,
        "val_accuracy": best.val_accuracy,
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "test_correct": test["correct"],
        "test_count": test["count"],
        "gaze": _gaze(model, data) if task.arm.is_attention else None,
    }


def _gaze(model: nn.Module, data: Data) -> dict[str, Any] | None:
    if data.boxes is None:
        return None
    boxes = data.boxes["test"][:_GAZED]
    images = torch.stack([data.test[index][0] for index in range(len(boxes))])
    return gaze(model, images, boxes) or None


@torch.inference_mode()
def _picture(task: Task, model: nn.Module, data: Data) -> None:
    """Keep the maps of a few test images, spread over the split and the same in every arm."""
    chosen = np.unique(np.linspace(0, len(data.test) - 1, _PICTURED).astype(int)).tolist()
    tensors = torch.stack([data.test[index][0] for index in chosen])
    pictures = np.stack([data.picture("test", index) for index in chosen])
    boxes = None if data.boxes is None else data.boxes["test"][chosen]
    predictions = model(tensors.to(task.options.device)).argmax(1).cpu().numpy()
    save_maps(model, pictures, tensors, data.test.labels[chosen], predictions, boxes, task.folder / "maps.npz")
