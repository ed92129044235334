"""One trial: one arm with one seed, trained, measured and recorded."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveate import files
from foveate.data import AnyData
from foveate.errors import DataError
from foveate.experiment.arms import Arm, Widths
from foveate.experiment.data import describe, open_study_data
from foveate.experiment.model import build_model
from foveate.experiment.options import Resolved
from foveate.experiment.outcome import outcome
from foveate.gates.maps import save_maps
from foveate.training import Diverged, EpochRow, pick_device


@dataclass(frozen=True)
class Trial:
    """All that a process needs to run one trial; a `keeps_maps` trial keeps the maps of a few images."""

    folder: Path
    options: Resolved
    arm: Arm
    seed: int
    widths: dict[str, Widths]
    threads: int
    keeps_maps: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the trial, ready for JSON."""
        return {
            **vars(self),
            "folder": str(self.folder),
            "options": self.options.to_dict(),
            "arm": self.arm.to_dict(),
            "widths": {where: list(widths.items()) for where, widths in self.widths.items()},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Trial":
        """Read what `to_dict` wrote."""
        return cls(
            **{
                **values,
                "folder": Path(values["folder"]),
                "options": Resolved.from_dict(values["options"]),
                "arm": Arm(**values["arm"]),
                "widths": {where: dict(pairs) for where, pairs in values["widths"].items()},
            }
        )


def run_trial(trial: Trial, on_epoch: Callable[[EpochRow], None] | None = None) -> dict[str, Any]:
    """Run a trial, write its folder with trial.json last, and return that.

    Errors are recorded; only an interruption is raised.
    """
    began = time.perf_counter()
    rows: list[EpochRow] = []

    def note(row: EpochRow) -> None:
        rows.append(row)
        if on_epoch:
            on_epoch(row)

    try:
        from foveate.training import fit

        torch.set_num_threads(trial.threads)
        data = open_study_data(trial.options)
        options = trial.options
        model = build_model(options, trial.arm, trial.seed, describe(options, data), trial.widths)
        fit(model, data, options.fit(trial.seed, trial.threads), note, name=options.task)
        outcome = _measure(trial, model, data, rows)
    except Diverged as error:
        outcome = {
            "status": "diverged",
            "error": f"{error.what} became NaN or infinite in epoch {error.epoch}, step {error.step}",
        }
    except DataError as error:
        parts = {"expected": error.expected, "received": error.received, "do": error.do}
        outcome = {"status": "failed", "error": f"DataError: {error}", "data_error": parts}
    except Exception as error:
        outcome = {"status": "failed", "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    result = {
        **blank(trial),
        **outcome,
        "history": [row.to_dict() for row in rows],
        "seconds": time.perf_counter() - began,
    }
    write_trial(trial.folder, result)
    return result


def blank(trial: Trial) -> dict[str, Any]:
    """Return the content of trial.json for a trial without results."""
    empty = ("sha256", "best_epoch", "val_score", "test_score", "test_loss", "test", "pointing_game")
    return {
        "arm": trial.arm.slug,
        "seed": trial.seed,
        "status": "failed",
        "error": None,
        "history": [],
        **dict.fromkeys(empty),
        "seconds": 0.0,
    }


def write_trial(folder: Path, result: dict[str, Any]) -> None:
    """Write history.csv, then trial.json, whose presence means that the trial has ended."""
    files.write_csv(folder / "history.csv", result["history"], list(EpochRow.__annotations__))
    files.write_json(folder / "trial.json", result)


def _measure(trial: Trial, model: nn.Module, data: AnyData, rows: list[EpochRow]) -> dict[str, Any]:
    what = trial.options.what
    model.to(pick_device(trial.options.device))
    found = outcome(trial.options, model, data, rows, trial.folder / "weights" / "best.safetensors")
    if trial.keeps_maps and trial.arm.is_attention:
        save_maps(what.maps(model, data), trial.folder / "maps.npz")
    return {
        "status": "done",
        **found,
        "pointing_game": what.pointing_game(model, data) if trial.arm.is_attention else None,
    }
