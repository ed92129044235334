"""Train one model, with or without attention, and save it in a run folder that describes itself."""

import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foveate import files, user_code
from foveate.data import AnyData
from foveate.errors import HostMovedWarning, UsageError
from foveate.experiment import run_folder
from foveate.experiment.arms import Arm, choose_arms
from foveate.experiment.data import data_record, open_study_data
from foveate.experiment.model import build_model
from foveate.experiment.options import CLUSTER, Resolved, StudyOptions
from foveate.experiment.outcome import outcome
from foveate.experiment.progress import Progress
from foveate.experiment.run_folder import ADAPTER, BEST, CHECKPOINT
from foveate.experiment.waiting import say_waiting
from foveate.models import save_weights
from foveate.surgery import save_adapter
from foveate.training import EpochRow, FitOptions, pick_device
from foveate.training.batch_size import check_batch_size

logger = logging.getLogger("foveate")

# Options of studies, which do nothing for one model.
_OF_STUDIES = ("control", "seeds", "margin", "budget", "dry_run", "jobs", "credit", "engine", *CLUSTER)


def train_one(options: StudyOptions, *, plain: bool = False, seed: int = 0, progress: Progress | None = None) -> Path:
    """Train the one attention that the options name, or the `plain` host, and return the run's folder.

    An interrupted training keeps its finished epochs; the same options with `resume` continue it.

    Raises:
        UsageError: an option, model, site or mechanism that cannot work; more than one attention; or no such run to
            resume.
        DataError: data or weights that cannot be used.
    """
    run_folder.check_name(options.name)
    resolved = options.resolve()
    arm = _one_arm(resolved, plain)
    fit_options = resolved.fit(seed, torch.get_num_threads())
    pick_device(fit_options.device)  # before anything is written
    data = open_study_data(resolved)
    record = data_record(resolved, data)
    args = {name: value for name, value in resolved.to_dict().items() if name not in _OF_STUDIES}
    args |= {"attention": "none" if plain else ",".join(resolved.attention), "seed": seed}
    name = resolved.name or f"{re.sub('[/:]', '-', user_code.short_name(resolved.model))}-{arm.slug}"
    progress = progress or Progress()
    if resolved.resume:
        folder = run_folder.begun_folder(resolved.project, "train", name, args, record)
        with files.locked(folder):
            files.sweep(folder)
            if run_folder.finished(folder):
                (folder / CHECKPOINT).unlink(missing_ok=True)  # of a run that was stopped at its very end
                logger.info("The run is already finished, so nothing was trained; leave --resume out to train again.")
            else:
                _train(
                    resolved,
                    arm,
                    seed,
                    _network(resolved, arm, seed, data, record, fit_options),
                    data,
                    fit_options,
                    folder,
                    progress,
                )
        return folder
    # The network may be refused, so it is built before the folder is made.
    network = _network(resolved, arm, seed, data, record, fit_options)
    folder = run_folder.new_folder(resolved.project, "train", name, resolved.exist_ok)
    with files.locked(folder):
        run_folder.begin(folder, args, record)
        _train(resolved, arm, seed, network, data, fit_options, folder, progress)
    return folder


def _one_arm(options: Resolved, plain: bool) -> Arm:
    if plain:
        if options.attention_lr is not None:
            raise UsageError(
                expected="attention to train at --attention-lr",
                received="--attention none",
                do="leave it out, or add --attention",
            )
        return Arm("none")
    arms = [arm for arm in choose_arms(options) if arm.is_attention]
    if len(arms) != 1:
        received = f"{len(arms)}: {', '.join(arm.slug for arm in arms)}"
        raise UsageError(expected="one attention to train", received=received, do="compare several with foveate study")
    return arms[0]


def _network(
    options: Resolved, arm: Arm, seed: int, data: AnyData, record: dict[str, Any], fit_options: FitOptions
) -> nn.Module:
    """Check the test images, build the model, and check its batch size.

    Raises UsageError, DataError.
    """
    for number in range(len(data.test)):  # else a damaged one would be found only after the training
        data.test[number]
    network = build_model(options, arm, seed, record, {})
    check_batch_size(network, data.train, fit_options, options.task)
    return network


def _train(
    options: Resolved,
    arm: Arm,
    seed: int,
    model: nn.Module,
    data: AnyData,
    fit_options: FitOptions,
    folder: Path,
    progress: Progress,
) -> None:
    """Train, measure and write the results; results.json comes last, as it marks the run as finished."""
    from foveate.training import fit  # Lightning takes seconds to import, and may be missing

    rows: list[EpochRow] = []
    progress.started(folder, 1, 0)

    def note(row: EpochRow) -> None:
        rows.append(row)
        files.write_csv(folder / "results.csv", [one.to_dict() for one in rows], list(row.to_dict()))
        progress.epoch_done(arm.slug, seed, row.to_dict(), fit_options.epochs)

    def keep(measured: nn.Module) -> None:
        save_weights(measured, folder / "weights" / "last.safetensors")

    fit(model, data, fit_options, note, name=options.task, checkpoint=folder / CHECKPOINT, keep=keep)
    result: dict[str, Any] = {
        "schema": 1,
        "model": options.model,
        "arm": {**arm.to_dict(), "mechanism": user_code.located(arm.mechanism)},
        "seed": seed,
        "data": data.fingerprint,
        "measure": options.what.MEASURE,
        **outcome(options, model, data, rows, folder / BEST),
    }
    if arm.is_attention:
        with warnings.catch_warnings(action="ignore", category=HostMovedWarning):  # best.safetensors holds the host
            save_adapter(model, folder / ADAPTER)
    files.write_json(folder / "results.json", result)
    say_waiting([row.to_dict() for row in rows], options, data)
    (folder / CHECKPOINT).unlink(missing_ok=True)
