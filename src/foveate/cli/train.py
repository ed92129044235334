"""`foveate train [DATA]`: one model with one attention, kept in a folder that describes itself."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from foveate.cli import console, flags, runs
from foveate.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from foveate.experiment.arms import Arm
    from foveate.experiment.options import StudyOptions
    from foveate.studies.gate_measures import AnyData
    from foveate.studies.trial import Task as Trial
    from foveate.training import FitOptions


def train(
    context: typer.Context,
    data_folder: flags.DataFolder = None,
    data: flags.Data = None,
    task: flags.Task = None,
    imgsz: flags.Imgsz = None,
    model: flags.Model = None,
    weights: flags.Weights = None,
    attention: flags.Attention = "none",
    where: flags.Where = None,
    start: flags.Start = "identity",
    epochs: flags.Epochs = None,
    batch: flags.Batch = None,
    lr: flags.Lr = None,
    attention_lr: flags.AttentionLr = None,
    optimizer: flags.Optimizer = None,
    weight_decay: flags.WeightDecay = None,
    smoothing: flags.Smoothing = None,
    patience: flags.Patience = None,
    fraction: flags.Fraction = None,
    amp: flags.Amp = None,
    ema: flags.Ema = None,
    freeze: flags.Freeze = False,
    freeze_epochs: flags.FreezeEpochs = None,
    augment: flags.Augment = None,
    multi_scale: flags.MultiScale = None,
    mosaic: flags.Mosaic = None,
    on_defect: flags.OnDefect = None,
    seed: flags.Seed = 0,
    data_seed: flags.DataSeed = None,
    canvas: flags.Canvas = None,
    fragments: flags.Fragments = None,
    noise: flags.Noise = None,
    channels: flags.Channels = None,
    train_count: flags.TrainCount = None,
    val_count: flags.ValCount = None,
    test_count: flags.TestCount = None,
    device: flags.Device = None,
    workers: flags.Workers = None,
    resume: flags.Resume = False,
    project: flags.Project = flags.RUNS,
    name: flags.Name = None,
    exist_ok: flags.ExistOk = False,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> None:
    """Train one model, with or without attention, and keep it."""
    import torch

    from foveate import files
    from foveate.models.own import short_name
    from foveate.studies.trial import Task as Trial
    from foveate.studies.trial import data_record, fit_options, open_study_data
    from foveate.training import pick_device

    runs.check_name(name)
    plain = attention in (None, "none")
    asked = flags.study_options(context.params, control=False, attention="se" if plain else attention).resolved()
    arm = _one_arm(asked, plain)
    threads = torch.get_num_threads()
    learn = fit_options(asked, seed, threads)
    pick_device(learn.device)  # before anything is written
    opened = open_study_data(asked)
    counts = ", ".join(f"{len(getattr(opened, part))} {part}" for part in ("train", "val", "test"))
    console.note(f"{opened.name}: {opened.details['layout']}; {counts}.")
    record = data_record(asked, opened)
    resolved = {**asked.to_dict(), "attention": attention, "seed": seed}
    args = {key: value for key, value in resolved.items() if key in context.params}
    name = name or f"{re.sub('[/:]', '-', short_name(asked.model or ''))}-{arm.slug}"
    trial = Trial(Path(), asked, arm, seed, {}, threads, pictured=False)
    if resume:
        folder = runs.begun_folder(project, "train", name, args, record)
        with files.held(folder):
            files.sweep(folder)
            result = _result_of(folder) if runs.finished(folder) else _train(trial, _network(trial, opened, learn), opened, learn, folder)
    else:
        network = _network(trial, opened, learn)  # before a folder is made, as it may be refused
        folder = runs.new_folder(project, "train", name, exist_ok)
        with files.held(folder):
            runs.begin(folder, args, record)
            result = _train(trial, network, opened, learn, folder)
    _tell(result, folder, json)


def _one_arm(asked: "StudyOptions", plain: bool) -> "Arm":
    from foveate.experiment.arms import Arm, choose_arms

    arms = choose_arms(asked)
    if plain and asked.attention_lr is not None:
        raise UsageError(
            expected="attention to train at --attention-lr", received="--attention none", do="leave it out, or add --attention"
        )
    if len(arms) > 2:
        received = f"{len(arms) - 1}: {', '.join(arm.slug for arm in arms[1:])}"
        raise UsageError(expected="one attention to train", received=received, do="compare several with foveate study")
    return Arm("none") if plain else arms[1]


def _network(trial: "Trial", opened: "AnyData", learn: "FitOptions") -> "nn.Module":
    """Build what is to be trained, once all that could be refused has been looked at. Raises UsageError, DataError."""
    from foveate.studies.trial import build_model
    from foveate.training.batch_size import require_company

    for number in range(len(opened.test)):  # read last, a damaged picture would be found when all is trained
        opened.test[number]
    network = build_model(trial, opened)
    require_company(network, opened.train, learn, trial.options.task)
    return network


def _result_of(folder: Path) -> dict[str, Any]:
    """What a finished run came to."""
    from foveate.studies.folder import read_json

    (folder / runs.CHECKPOINT).unlink(missing_ok=True)  # of a run that was stopped right at its end
    console.note("The run is finished, nothing was repeated; leave --resume out to train anew.")
    return read_json(folder / "results.json", "leave --resume out to train anew")


def _tell(result: Mapping[str, Any], folder: Path, json: bool) -> None:
    if json:
        console.say_json({**result, "run": str(folder)})
        return
    console.say(f"Test {result['measure']} {100 * result['test_score']:.2f} % {_of(result['test'])}".rstrip(), "bold")
    console.say(f"Epoch {result['best_epoch']} was best on val: {100 * result['val_score']:.2f} %")
    console.say(folder)


def _of(test: Mapping[str, Any]) -> str:
    """What stands beside the score."""
    if "mAP" in test:
        return f"(mAP {100 * test['mAP']:.2f} %, {test['count']} pictures)"
    return f"({test['correct']} of {test['count']})"


def _train(trial: "Trial", model: "nn.Module", data: "AnyData", learn: "FitOptions", folder: Path) -> dict[str, Any]:
    """Train, measure, and write what came out; results.json last, whose presence makes the folder a trained model."""
    from foveate import files
    from foveate.cli.progress import follow
    from foveate.models import save_weights
    from foveate.surgery import save_adapter
    from foveate.training import EpochRow, best_row, evaluate, fit, task

    name = trial.options.task
    rows: list[EpochRow] = []
    slug, seed = trial.arm.slug, trial.seed
    with follow() as shown:
        shown.started(folder, 1, 0)

        def note(row: EpochRow) -> None:
            rows.append(row)
            files.write_csv(folder / "results.csv", [one.to_dict() for one in rows], list(row.to_dict()))
            shown.epoch_done(slug, seed, row.to_dict(), learn.epochs)

        def keep(measured: "nn.Module") -> None:
            save_weights(measured, folder / "weights" / "last.safetensors")

        try:
            fit(model, data, learn, note, name=name, checkpoint=folder / runs.CHECKPOINT, keep=keep)
        except KeyboardInterrupt:
            console.note("The epochs that are done are kept: the same command with --resume does the rest.")
            raise
    best, test = best_row(rows), evaluate(model, data.test, learn.batch, learn.workers, name)
    digest = save_weights(model, folder / runs.BEST)
    if trial.arm.is_attention:
        save_adapter(model, folder / runs.ADAPTER)
    result = {
        "schema": 1,
        "model": trial.options.model,
        "arm": trial.arm.to_dict(),
        "seed": trial.seed,
        "sha256": digest,
        "data": data.fingerprint,
        "measure": task(name).MEASURE,
        "best_epoch": best.epoch,
        "val_score": best.val_score,
        "test_score": test.pop("score"),
        "test_loss": test.pop("loss"),
        "test": test,
    }
    files.write_json(folder / "results.json", result)
    (folder / runs.CHECKPOINT).unlink(missing_ok=True)
    return result
