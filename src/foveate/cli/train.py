"""`foveate train [DATA]`: one model with one attention, kept in a folder that describes itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from foveate.cli import console, options, runs
from foveate.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from foveate.data import Data
    from foveate.study.trial import Task
    from foveate.train import FitOptions


def train(
    context: typer.Context,
    data_folder: options.DataFolder = None,
    data: options.Data = None,
    imgsz: options.Imgsz = None,
    model: options.Model = None,
    weights: options.Weights = None,
    attention: options.Attention = "none",
    where: options.Where = "residual",
    start: options.Start = "identity",
    epochs: options.Epochs = None,
    batch: options.Batch = None,
    lr: options.Lr = None,
    optimizer: options.Optimizer = None,
    weight_decay: options.WeightDecay = None,
    smoothing: options.Smoothing = None,
    patience: options.Patience = None,
    fraction: options.Fraction = None,
    amp: options.Amp = None,
    freeze: options.Freeze = False,
    seed: options.Seed = 0,
    data_seed: options.DataSeed = None,
    canvas: options.Canvas = None,
    fragments: options.Fragments = None,
    noise: options.Noise = None,
    channels: options.Channels = None,
    train_count: options.TrainCount = None,
    val_count: options.ValCount = None,
    test_count: options.TestCount = None,
    device: options.Device = None,
    workers: options.Workers = None,
    project: options.Project = options.RUNS,
    name: options.Name = None,
    exist_ok: options.ExistOk = False,
    json: options.Json = False,
    config: options.Config = None,
    debug: options.Debug = False,
) -> None:
    """Train one model, with or without attention, and keep it."""
    import torch

    from foveate.study.arms import Arm, choose_arms
    from foveate.study.trial import Task, build_model, fit_options, open_study_data
    from foveate.surgery import freeze_host

    plain = attention in (None, "none")
    asked = options.study_options(context.params, control=False, attention="se" if plain else attention).resolved()
    arms = choose_arms(asked)
    if len(arms) > 2:
        received = f"{len(arms) - 1}: {', '.join(arm.slug for arm in arms[1:])}"
        raise UsageError(expected="one attention to train", received=received, do="compare several with foveate study")
    if plain and freeze:
        raise UsageError(expected="attention to train beside a frozen host", received="--freeze alone", do="add --attention")
    arm = Arm("none") if plain else arms[1]
    threads = torch.get_num_threads()
    learn = fit_options(asked, seed, threads)
    photos = open_study_data(asked)
    task = Task(Path(), asked, arm, seed, {}, threads, pictured=False)
    network = build_model(task, photos)
    if freeze:
        freeze_host(network)
    folder = runs.new_folder(project, "train", name or f"{(asked.model or '').replace('/', '-')}-{arm.slug}", exist_ok)
    resolved = {**asked.to_dict(), "attention": attention, "where": where, "start": start, "seed": seed, "freeze": freeze}
    runs.write_yaml(folder / "args.yaml", {key: value for key, value in resolved.items() if key in context.params})
    result = _train(task, network, photos, learn, folder)
    if json:
        console.say_json({**result, "run": str(folder)})
        return
    console.say(f"Test accuracy {100 * result['test_accuracy']:.2f} % ({result['test_correct']} of {result['test_count']})", "bold")
    console.say(f"Epoch {result['best_epoch']} was best on val: {100 * result['val_accuracy']:.2f} %")
    console.say(folder)


def _train(task: "Task", model: "nn.Module", data: "Data", learn: "FitOptions", folder: Path) -> dict[str, Any]:
    """Train, measure, and write the run's records; results.json last, whose presence makes the folder a trained model."""
    from foveate import files
    from foveate.cli.progress import follow
    from foveate.models import save_weights
    from foveate.study.environment import describe_environment
    from foveate.surgery import save_adapter
    from foveate.train import EpochRow, best_row, evaluate, fit

    (folder / "results.json").unlink(missing_ok=True)
    files.write_json(folder / "env.json", describe_environment())
    files.write_json(folder / "data.json", data.describe())
    rows: list[EpochRow] = []
    slug, seed = task.arm.slug, task.seed
    with follow() as shown:
        shown.started(folder, 1, 0)

        def note(row: EpochRow) -> None:
            rows.append(row)
            files.write_csv(folder / "results.csv", [one.to_dict() for one in rows], list(row.to_dict()))
            save_weights(model, folder / "weights" / "last.safetensors")
            shown.epoch_done(slug, seed, row.to_dict(), learn.epochs)

        fit(model, data, learn, note)
    best, test = best_row(rows), evaluate(model, data.test, learn.batch, learn.workers)
    digest = save_weights(model, folder / runs.BEST)
    if task.arm.is_attention:
        save_adapter(model, folder / "weights" / "adapter.safetensors")
    measured = {f"test_{name}": value for name, value in test.items()}
    result = {
        "schema": 1,
        "model": task.options.model,
        "arm": task.arm.to_dict(),
        "seed": task.seed,
        "sha256": digest,
        "data": data.fingerprint,
        "best_epoch": best.epoch,
        "val_accuracy": best.val_accuracy,
        **measured,
    }
    files.write_json(folder / "results.json", result)
    return result
