"""`foveate study [DATA]`: which attention, at which sites, helps this model on these data, and at what cost."""

from collections.abc import Mapping
from typing import Any

import typer

from foveate.cli import console, flags

WIDE, MEDIUM = 160, 110  # terminal widths for the whole table, and for MEDIUM_COLUMNS
MEDIUM_COLUMNS = ("arm", "verdict", "score", "difference", "could_have_seen", "parameters", "latency")
NARROW_COLUMNS = ("arm", "verdict", "score", "difference")


def study(
    context: typer.Context,
    data_folder: flags.DataFolder = None,
    data: flags.Data = None,
    task: flags.Task = None,
    imgsz: flags.Imgsz = None,
    model: flags.Model = None,
    weights: flags.Weights = None,
    attention: flags.Attentions = None,
    where: flags.Wheres = None,
    replace: flags.Replace = None,
    start: flags.Starts = None,
    control: flags.Control = True,
    seeds: flags.Seeds = None,
    margin: flags.Margin = None,
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
    data_seed: flags.DataSeed = None,
    canvas: flags.Canvas = None,
    fragments: flags.Fragments = None,
    noise: flags.Noise = None,
    channels: flags.Channels = None,
    train_count: flags.TrainCount = None,
    val_count: flags.ValCount = None,
    test_count: flags.TestCount = None,
    dry_run: flags.DryRun = False,
    resume: flags.Resume = False,
    budget: flags.Budget = None,
    jobs: flags.Jobs = None,
    engine: flags.Engine = None,
    address: flags.Address = None,
    cpus_per_trial: flags.CpusPerTrial = None,
    gpus_per_trial: flags.GpusPerTrial = None,
    retries: flags.Retries = None,
    results: flags.Results = None,
    device: flags.Device = None,
    workers: flags.Workers = None,
    cache: flags.Cache = None,
    cache_size: flags.CacheSize = None,
    project: flags.Project = flags.RUNS,
    name: flags.Name = None,
    exist_ok: flags.ExistOk = False,
    credit: flags.Credit = None,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> int:
    """Train every choice of attention from the same seeds and say whether it helped."""
    asked = flags.study_options(context.params, budget=flags.seconds(budget))
    from foveate.cli.progress_display import show_progress
    from foveate.files import read_json
    from foveate.report.page import build_report
    from foveate.studies.run import exit_code, run_study

    with show_progress(dry_run) as display:
        try:
            folder = run_study(asked, progress=display, report=build_report)
        except KeyboardInterrupt:
            console.note("Finished trials are kept: run the same command with --resume to continue.")
            raise
    if folder is None:
        if json and display.plan is not None:
            console.say_json({"schema": 1, "plan": display.plan.to_dict()})
        else:
            console.say(display.plan)
        return 0
    folder = folder.resolve()
    found = read_json(folder / "results.json")
    if json:
        console.say_json({**found, "run": str(folder), "report": str(folder / "report.html")})
    else:
        try:
            show(found)
        finally:
            console.say(folder / "report.html")
    return exit_code(folder)


def show(results: Mapping[str, Any]) -> None:
    """Print the verdict, the table and the failures."""
    from foveate.report.results_table import headings, rows, summary_table

    verdict = results["verdict"]
    console.say()
    console.say_prose(verdict["headline"], "bold")
    console.say_prose(results["advice"])
    for sentence in verdict["sentences"]:
        console.say_prose(sentence)
    for warning in results["warnings"]:
        console.say_prose(f"Warning: {warning}", "yellow")
    for name, judged in (results.get("also") or {}).items():
        console.say_prose(f"By {name}: {judged['verdict']['headline']}")
    console.say()
    terminal, titles = console.stdout(), headings(results)
    if terminal.is_terminal:
        columns = (
            tuple(titles) if terminal.width >= WIDE else MEDIUM_COLUMNS if terminal.width >= MEDIUM else NARROW_COLUMNS
        )
        console.say_table(
            [titles[name] for name in columns],
            [[getattr(row, name) for name in columns] for row in rows(results)],
            left=2,
        )
    else:
        console.say(summary_table(results))
    console.say()
    for failure in results["failures"]:
        console.say_prose(f"{failure['arm']} seed {failure['seed']} {failure['status']}: {failure['error']}", "yellow")
