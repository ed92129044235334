"""Train one model, with or without attention, and save it in a run folder that describes itself."""

import logging
import platform
import re
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

import foveate
from foveate import files, user_code
from foveate.data import AnyData
from foveate.errors import DataError, HostMovedWarning, UsageError
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
from foveate.training import EpochRow, FitOptions, peers, pick_device
from foveate.training.batch_size import check_batch_size

logger = logging.getLogger("foveate")

# Options of studies, which do nothing for one model.
_OF_STUDIES = ("control", "seeds", "margin", "budget", "dry_run", "jobs", "credit", "engine", *CLUSTER)


def train_one(options: StudyOptions, *, plain: bool = False, seed: int = 0, progress: Progress | None = None) -> Path:
    """Train the one attention that the options name, or the `plain` host, and return the run's folder.

    Of several processes with `strategy="ddp"`, only rank 0 writes. An interrupted training keeps its finished epochs;
    the same options with `resume` continue it.

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
    with peers.joined(fit_options), ExitStack() as locks:
        _require_same(record)
        # The network may be refused, so it is built before the folder is made.
        network = None if resolved.resume else _network(resolved, arm, seed, data, record, fit_options)
        begun = _begin(resolved, name, args, record, locks) if peers.is_first() else None
        folder, is_finished = peers.from_first(begun)
        if not is_finished:
            network = network or _network(resolved, arm, seed, data, record, fit_options)
            _train(resolved, arm, seed, network, data, fit_options, folder, progress)
        return folder


def _require_same(record: dict[str, Any]) -> None:
    """Raise DataError unless this process reads what rank 0 reads, with the same versions."""
    own = {"data": record, "torch": torch.__version__, "foveate": foveate.__version__}
    first = peers.from_first(own)
    if differing := [name for name in own if own[name] != first[name]]:
        raise DataError(
            expected="the data, first weights, code and versions of rank 0 in every process",
            received=f"other {' and '.join(differing)} on {platform.node()}",
            do="install the same versions and copy the same data to every node",
        )


def _begin(
    options: Resolved, name: str, args: dict[str, Any], record: dict[str, Any], locks: ExitStack
) -> tuple[Path, bool]:
    """Make the folder of a run, or find the one to resume; return it, locked, and whether it is finished."""
    if not options.resume:
        folder = run_folder.new_folder(options.project, "train", name, options.exist_ok)
        locks.enter_context(files.locked(folder))
        run_folder.begin(folder, args, record)
        return folder, False
    folder = run_folder.begun_folder(options.project, "train", name, args, record)
    locks.enter_context(files.locked(folder))
    files.sweep(folder)
    if is_finished := run_folder.finished(folder):
        (folder / CHECKPOINT).unlink(missing_ok=True)  # of a run that was stopped at its very end
        logger.info("The run is already finished, so nothing was trained; leave --resume out to train again.")
    return folder, is_finished


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
    """Train, measure and write the results; results.json comes last, as it marks the run as finished.

    Of several processes, only rank 0 measures and writes.
    """
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
    if not peers.is_first():
        return
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
