"""One trial: one arm with one seed, trained, measured and written down."""

import hashlib
import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveate import files
from foveate.data import Split, open_box_data, open_data
from foveate.errors import DataError
from foveate.experiment.arms import Arm, Widths, build_host, dress, example_of, freeze
from foveate.experiment.first_weights import anchors_of, bring_attention, first_normalisation, first_weights, load_first
from foveate.experiment.options import StudyOptions
from foveate.models import save_weights
from foveate.models.own import code_digest
from foveate.normalisation import Normalisation
from foveate.studies.gate_measures import AnyData, keep_maps, measure_gaze
from foveate.training import Diverged, EpochRow, FitOptions, best_row, evaluate, pick_device

logger = logging.getLogger("foveate")


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
        from foveate.training import fit

        torch.set_num_threads(task.threads)
        data = open_study_data(task.options)
        model = build_model(task, data)
        fit(model, data, fit_options(task.options, task.seed, task.threads), note, name=task.options.task)
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
    empty = ("sha256", "best_epoch", "val_score", "test_score", "test_loss", "test", "gaze")
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


def build_model(task: Task, data: AnyData) -> nn.Module:
    """Build the host of the task's seed with what its arm attaches; where `freeze` asks for it, only that and the heads may learn.

    Weights of a model with attention are loaded whole, which must be the arm's. Raises UsageError, DataError for those that do not fit.
    """
    described, whole = _described(task.options, data), bring_attention(task.options)
    model = build_host(task.options, described, task.seed, blank=True)
    if not whole:
        load_first(model, task.options, described)
    dress(model, task.arm, task.seed, example_of(described), task.widths)
    if whole:
        load_first(model, task.options, described)
    if task.options.freeze:
        freeze(model, task.options, len(described["classes"]))
    return model


def data_record(options: StudyOptions, data: AnyData) -> dict[str, Any]:
    """Return what data.json holds: what the data say of themselves, their split, a detector's anchors, the digests of what else is read."""
    return {**_described(options, data), "split": data.split and data.split.to_dict(), **digests(options)}


def _described(options: StudyOptions, data: AnyData) -> dict[str, Any]:
    """What the data say of themselves, with the anchors that a detector's heads have."""
    described = data.describe()
    return {**described, "anchors": anchors_of(options, described)} if options.task == "detect" else described


def digests(options: StudyOptions) -> dict[str, str | None]:
    """Return the sha256 of the file that the first weights come from, and of the file of a model of one's own; None where there is none."""
    return {"weights_sha256": _weights_digest(options), "model_sha256": code_digest(options.resolved().model)}


def _weights_digest(options: StudyOptions) -> str | None:
    path = first_weights(options)
    if path is None or not path.is_file():  # building the model tells what is wrong with it
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fit_options(options: StudyOptions, seed: int, threads: int) -> FitOptions:
    """Return how the study trains: the same in every arm."""
    options = options.resolved()
    ours = {field.name for field in fields(FitOptions)} & {field.name for field in fields(StudyOptions)}
    return FitOptions(**{name: getattr(options, name) for name in ours}, seed=seed, threads=threads)


def open_study_data(
    options: StudyOptions, split: Split | None = None, measured: str | None = None, normalisation: Normalisation | None = None
) -> AnyData:
    """Open the study's data; a process opens the same data once.

    The splits are as `open_data` makes them of `split` and `measured`. Images are normalised as for the first weights, or as is asked.
    """
    options = options.resolved()
    common = {"imgsz": options.imgsz, "seed": options.data_seed, "split": split, "measured": measured, "augment": options.augment}
    if options.task == "detect":
        return _open(open_box_data, options.data, **common, digits=options.scenes(), on_defect=options.on_defect)
    normalisation = normalisation or first_normalisation(options)
    drawn = {"digits": options.digits(), "planted": options.planted_options()}
    return _open(open_data, options.data, **common, **drawn, normalisation=normalisation)


@lru_cache(maxsize=1)
def _open(opener: Callable[..., AnyData], path: Path | None, **options: Any) -> AnyData:
    data = opener(path, **options)
    for note in (*data.details["notes"], f"images are normalised by {data.normalisation}"):
        logger.info("%s: %s", data.name, note)
    return data


def _measure(task: Task, model: nn.Module, data: AnyData, rows: list[EpochRow]) -> dict[str, Any]:
    model.to(pick_device(task.options.device))
    best = best_row(rows)
    test = evaluate(model, data.test, task.options.batch or 1, task.options.workers, task.options.task)
    digest = save_weights(model, task.folder / "weights" / "best.safetensors")
    if task.pictured and task.arm.is_attention:
        keep_maps(model, data, task.folder / "maps.npz")
    return {
        "status": "done",
        "sha256": digest,
        "best_epoch": best.epoch,
        "val_score": best.val_score,
        "test_score": test.pop("score"),
        "test_loss": test.pop("loss"),
        "test": test,
        "gaze": measure_gaze(model, data) if task.arm.is_attention else None,
    }
