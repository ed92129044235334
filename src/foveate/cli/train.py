"""`foveate train [DATA]`: train one model with one attention, and save it in a folder that describes itself."""

import logging

import typer

from foveate.cli import console, flags


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
    replace: flags.Replace = None,
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
    cache: flags.Cache = None,
    cache_size: flags.CacheSize = None,
    strategy: flags.Strategy = None,
    nodes: flags.Nodes = None,
    devices: flags.Devices = None,
    sync_batch_norm: flags.SyncBatchNorm = None,
    resume: flags.Resume = False,
    project: flags.Project = flags.RUNS,
    name: flags.Name = None,
    exist_ok: flags.ExistOk = False,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> None:
    """Train one model, with or without attention, and save it."""
    plain = attention in (None, "none")
    asked = flags.study_options(context.params, control=False, attention=None if plain else attention)
    from foveate.cli.progress_display import show_progress
    from foveate.experiment.progress import Progress
    from foveate.experiment.train_one import train_one
    from foveate.files import read_json
    from foveate.training import peers

    if not peers.is_first():  # rank 0 shows and says everything
        logging.getLogger("foveate").setLevel(logging.ERROR)
        train_one(asked, plain=plain, seed=seed, progress=Progress())
        return
    with show_progress() as display:
        try:
            folder = train_one(asked, plain=plain, seed=seed, progress=display)
        except KeyboardInterrupt:
            console.note("Finished epochs are kept: run the same command with --resume to continue.")
            raise
    result = read_json(folder / "results.json")
    if json:
        console.say_json({**result, "run": str(folder)})
        return
    score = f"Test {result['measure']} {100 * result['test_score']:.2f} % {asked.what.figures(result['test'])}"
    console.say(score, "bold")
    console.say(f"Epoch {result['best_epoch']} was best on val: {100 * result['val_score']:.2f} %")
    console.say(folder)
