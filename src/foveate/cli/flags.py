"""The options of the command line: a name means the same in every command, and None means not given."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli.config import use_config
from foveate.errors import UsageError

if TYPE_CHECKING:
    from foveate.experiment.options import StudyOptions

_CLUSTER = "Cluster (with --engine ray)"
PROCESSES = "Several processes"
_MODEL, _TRAIN, _STUDY, _DIGITS = "Model and attention", "Training", "Study", "Embedded data: digits"
BOXES, _RUN, _OUTPUT = "Boxes (detection)", "Run", "Output"
MODELS = (
    "resnet20, efficientnet-lite0 (pretrained), timm/NAME, torchvision/NAME or FILE.py:FUNCTION; detector: yolov4-tiny."
)


def option(*names: str, help: str, panel: str | None = None, **more: Any) -> Any:
    """Return an option whose help is the one place that says what it means, also for the reference and for Python."""
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, **more)


def check_project(folder: Path) -> Path:
    """Return the folder, or raise UsageError if it cannot be made, before anything is computed."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if place.is_dir() and os.access(place, os.W_OK):
        return folder
    what = "may not be written in" if place.is_dir() else "is a file"
    raise UsageError(
        expected="--project as a folder that can be made",
        received=f"{folder}: {place} {what}",
        do="choose another --project",
    )


def check_weights_file(arguments: Sequence[str]) -> None:
    """Raise UsageError for `--pretrained` without a file, which asks for weights that come with a model."""
    for argument, following in zip(arguments, (*arguments[1:], "-"), strict=False):
        if argument in ("--pretrained", "--weights") and following.startswith("-"):
            raise UsageError(
                expected=f"{argument} with a local file of weights",
                received=f"{argument} without a file",
                do="--model efficientnet-lite0 starts from ImageNet weights; --weights FILE from those of a file",
            )


DataFolder = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="Folder of images (with boxes for --task detect), or planted:where, planted:what, planted:neither. "
        "Default: generated digits.",
        show_default=False,
    ),
]
Task = Annotated[str | None, option("--task", help="classify (default) or detect.", panel="Options")]
Data = Annotated[Path | None, option("--data", help="The same as DATA.", panel="Options", metavar="FOLDER")]
Imgsz = Annotated[
    int | None, option("--imgsz", "--img-size", help="Side of the model's input in pixels.", panel="Options")
]

Model = Annotated[str | None, option("--model", help=MODELS, panel=_MODEL)]
Weights = Annotated[
    Path | None,
    option(
        "--weights", "--pretrained", help="A local checkpoint; nothing is downloaded.", panel=_MODEL, metavar="FILE"
    ),
]
Attentions = Annotated[
    str | None,
    option("--attention", help="Mechanisms: se,cbam,cbam-paper,se:reduction=8,... See foveate list.", panel=_MODEL),
]
Wheres = Annotated[
    str | None, option("--where", help="Sites: residual,stage,skip or module name patterns.", panel=_MODEL)
]
Replace = Annotated[
    str | None,
    option(
        "--replace",
        help="Put attention in the place of modules of this class, which the plain host keeps: SqueezeExcitation, ...",
        panel=_MODEL,
    ),
]
Starts = Annotated[
    str | None,
    option(
        "--start", help="How attention starts: identity (default), paper, or identity,paper for both.", panel=_MODEL
    ),
]
Attention = Annotated[
    str | None, option("--attention", help="One mechanism: cbam, se:reduction=8, ... or none.", panel=_MODEL)
]
Where = Annotated[
    str | None, option("--where", help="Sites: residual, stage, skip or a module name pattern.", panel=_MODEL)
]
Start = Annotated[
    str | None,
    option(
        "--start",
        help="How attention starts: identity (default: the host's output stays equal) or paper.",
        panel=_MODEL,
    ),
]

Epochs = Annotated[int | None, option("--epochs", help="Passes over the training images.", panel=_TRAIN)]
Batch = Annotated[
    int | None, option("--batch", "--batch-size", help="Images per step (24; planted data 50).", panel=_TRAIN, min=1)
]
MeasuringBatch = Annotated[
    int | None, option("--batch", "--batch-size", help="Images computed at the same time.", panel=_RUN, min=1)
]
Lr = Annotated[
    float | None, option("--lr", help="Peak learning rate of the host; the schedule is one-cycle.", panel=_TRAIN)
]
AttentionLr = Annotated[
    float | None, option("--attention-lr", help="Peak learning rate of the attention (default: --lr).", panel=_TRAIN)
]
Optimizer = Annotated[str | None, option("--optimizer", help="adamw (default) or sgd.", panel=_TRAIN)]
WeightDecay = Annotated[
    float | None, option("--weight-decay", help="Weight decay; not applied to biases and norms (0.01).", panel=_TRAIN)
]
Smoothing = Annotated[float | None, option("--smoothing", help="Label smoothing (0).", panel=_TRAIN)]
Patience = Annotated[
    int | None, option("--patience", help="Stop after this many epochs without a better val score.", panel=_TRAIN)
]
Fraction = Annotated[
    float | None,
    option("--fraction", help="Share of the training images to use, the same images for every seed (1).", panel=_TRAIN),
]
Amp = Annotated[bool | None, option("--amp/--no-amp", help="Compute in bfloat16 where that is safe.", panel=_TRAIN)]
Ema = Annotated[
    float | None,
    option(
        "--ema",
        help="Decay per step of the EMA of the weights; the EMA is what is saved (0; detect 0.99).",
        panel=_TRAIN,
    ),
]
FreezeEpochs = Annotated[
    int | None,
    option("--freeze-epochs", help="Freeze the backbone for this many epochs at the start (0).", panel=_TRAIN),
]
MultiScale = Annotated[
    bool | None,
    option(
        "--multi-scale/--no-multi-scale", help="Train a detector at sizes from 3/4 to 5/4 of --imgsz.", panel=_TRAIN
    ),
]
Augment = Annotated[
    bool | None,
    option("--augment/--no-augment", help="Augment training images: random crop, flip, colour (on).", panel=_TRAIN),
]
Mosaic = Annotated[
    bool | None,
    option(
        "--mosaic/--no-mosaic",
        help="Train a detector on mosaics of four images, except in the last two epochs (on).",
        panel=_TRAIN,
    ),
]
OnDefect = Annotated[
    str | None,
    option(
        "--on-defect",
        help="drop or refuse damaged images and boxes (default: refuse images, drop boxes).",
        panel=_TRAIN,
    ),
]
Conf = Annotated[
    float | None, option("--conf", help="Lowest confidence of a box that is kept.", panel=BOXES, min=0, max=1)
]
Iou = Annotated[
    float | None,
    option("--iou", help="IoU above which the less confident of two boxes is removed.", panel=BOXES, min=0, max=1),
]
MaxDet = Annotated[int | None, option("--max-det", help="Largest number of boxes per image.", panel=BOXES, min=1)]
Freeze = Annotated[
    bool,
    option("--freeze", help="Freeze the host: only the attention and the classifier (or heads) learn.", panel=_TRAIN),
]
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of the first weights and the batch order.", rich_help_panel=_TRAIN)
]
DataSeed = Annotated[
    int | None, option("--data-seed", help="Seed for generating or splitting the data (0).", panel=_TRAIN)
]

Control = Annotated[
    bool,
    option("--control/--no-control", help="Add an arm with as many parameters but no attention (on).", panel=_STUDY),
]
Seeds = Annotated[
    str | None,
    option("--seeds", help="Seeds per arm; 3..20 adds seeds until every arm is decided (5).", panel=_STUDY),
]
Margin = Annotated[
    float | None,
    option("--margin", help="Largest difference, in points, of arms that are practically equal (1).", panel=_STUDY),
]
Budget = Annotated[
    str | None, option("--budget", help="Reduce epochs and seeds to fit this time: 2h, 90m.", panel=_STUDY)
]
Jobs = Annotated[
    int | None,
    option(
        "--jobs",
        help="Trials at the same time, each on its share of the cores (one per core, or one per GPU).",
        panel=_STUDY,
    ),
]
Engine = Annotated[
    str | None, option("--engine", help="local (default), or ray: the trials run on a Ray cluster.", panel=_CLUSTER)
]
Address = Annotated[
    str | None,
    option("--address", help="The cluster: auto or HOST:PORT (default: a new one on this machine).", panel=_CLUSTER),
]
CpusPerTrial = Annotated[
    int | None, option("--cpus-per-trial", help="Cores of a node that a trial takes (1).", panel=_CLUSTER, min=1)
]
GpusPerTrial = Annotated[
    float | None, option("--gpus-per-trial", help="GPUs of a node that a trial takes (0).", panel=_CLUSTER, min=0)
]
Retries = Annotated[
    int | None,
    option("--retries", help="How often a trial runs again after its process or node died (2).", panel=_CLUSTER, min=0),
]
Results = Annotated[
    str | None,
    option(
        "--results",
        help="Where the nodes write finished trials: a shared folder or s3://BUCKET/FOLDER (default: on this machine).",
        panel=_CLUSTER,
        metavar="PLACE",
    ),
]
DryRun = Annotated[bool, option("--dry-run", help="Show the plan and the expected time, and stop.", panel=_STUDY)]
Credit = Annotated[
    str | None, option("--credit", help="Source and licence of the images that the report shows.", panel=_STUDY)
]

Canvas = Annotated[
    int | None, option("--canvas", help="Side of a generated scene in pixels (32; detect 128).", panel=_DIGITS)
]
Fragments = Annotated[int | None, option("--fragments", help="Distractors in a scene (3; detect 12).", panel=_DIGITS)]
Noise = Annotated[
    float | None, option("--noise", help="Half width of the pixel noise, 0 to 1; classify only (0).", panel=_DIGITS)
]
Channels = Annotated[int | None, option("--channels", help="Channels of a scene, 1 or 3 (1; detect 3).", panel=_DIGITS)]
TrainCount = Annotated[int | None, option("--train-count", help="Training scenes (2000; detect 4000).", panel=_DIGITS)]
ValCount = Annotated[
    int | None,
    option("--val-count", help="Validation scenes, which choose the epoch (400; detect 200).", panel=_DIGITS),
]
TestCount = Annotated[
    int | None,
    option("--test-count", help="Test scenes, for the one final measurement (1500; detect 500).", panel=_DIGITS),
]

Device = Annotated[
    str | None,
    option("--device", help="auto (default: the first available of cuda, mps, cpu), or one of these.", panel=_RUN),
]
Workers = Annotated[int | None, option("--workers", help="Processes that read images (0).", panel=_RUN, min=0)]
Cache = Annotated[
    str | None,
    option("--cache", help="Where decoded images are kept: none, ram (default) or disk, which lasts.", panel=_RUN),
]
CacheSize = Annotated[
    float | None,
    option("--cache-size", help="Largest size of the cache in GiB (ram 0.5 for each trial; disk 10).", panel=_RUN),
]
Strategy = Annotated[
    str | None,
    option("--strategy", help="ddp: several processes train one model; see foveate launch.", panel=PROCESSES),
]
Nodes = Annotated[int | None, option("--nodes", help="Machines that train one model (1).", panel=PROCESSES, min=1)]
Devices = Annotated[
    int | None,
    option(
        "--devices",
        help="Processes of each machine, one for each GPU (1); --batch is for each.",
        panel=PROCESSES,
        min=1,
    ),
]
SyncBatchNorm = Annotated[
    bool | None,
    option("--sync-batch-norm", help="Batch norms see the batches of all processes.", panel=PROCESSES),
]
Resume = Annotated[
    bool, option("--resume", help="Continue what the same command began; finished work is kept.", panel=_RUN)
]
Project = Annotated[
    Path, typer.Option("--project", help="Where runs are kept.", rich_help_panel=_RUN, callback=check_project)
]
Name = Annotated[str | None, option("--name", help="Name of the run's folder.", panel=_RUN)]
ExistOk = Annotated[bool, option("--exist-ok", help="Write into the folder of that name if it exists.", panel=_RUN)]
RunFolder = Annotated[
    Path,
    option("--run", help="The folder of a trained model, such as runs/train/resnet8.", panel=_RUN, metavar="FOLDER"),
]

Json = Annotated[bool, option("--json", help="Print the result as JSON.", panel=_OUTPUT)]
Debug = Annotated[bool, option("--debug", help="Show the traceback of an error.", panel=_OUTPUT)]
Config = Annotated[
    Path | None,
    option(
        "--config",
        help="A YAML file of these options; the command line overrides it.",
        panel=_OUTPUT,
        metavar="FILE",
        callback=use_config,
        is_eager=True,
    ),
]

RUNS = Path("runs")
_DURATION = re.compile(r"(?:(?P<h>[\d.]+) *h)? *(?:(?P<m>[\d.]+) *m(?:in)?)? *(?:(?P<s>[\d.]+) *s?)?", re.IGNORECASE)


def study_options(parameters: Mapping[str, Any], **replaced: Any) -> "StudyOptions":
    """Return the study options from a command's parameters; options that were not given keep their defaults."""
    from foveate.experiment.options import StudyOptions

    values = {**parameters, **replaced, "data": data_folder(parameters.get("data_folder"), parameters.get("data"))}
    return StudyOptions(
        **{field.name: values[field.name] for field in fields(StudyOptions) if values.get(field.name) is not None}
    )


def seconds(text: str | None) -> float | None:
    """Read a time such as 2h, 90m, 1h30m or 45s.

    Raises UsageError.

    >>> seconds("1h30m"), seconds("90m"), seconds("45"), seconds(None)
    (5400.0, 5400.0, 45.0, None)
    """
    if text is None:
        return None
    match = _DURATION.fullmatch(text.strip())
    try:
        parts = {unit: float(value or 0) for unit, value in match.groupdict().items()} if match else {}
    except ValueError:
        parts = {}
    total = 3600 * parts.get("h", 0) + 60 * parts.get("m", 0) + parts.get("s", 0)
    if not total:
        raise UsageError(
            expected="a time such as 2h, 90m or 1h30m",
            received=repr(text),
            do="write hours, minutes or seconds with their unit",
        )
    return total


def of_task(task: str, taken: Collection[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given.

    Raises UsageError for one that models of this task do not take.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    for name, value in chosen.items():
        if name not in taken:
            option = f"--{'no-' if value is False else ''}{name.replace('_', '-')}"
            received = f"{option} for a model trained with --task {task}"
            raise UsageError(expected="options that this model takes", received=received, do="leave it out")
    return chosen


def data_folder(first: Path | None, second: Path | None) -> Path | None:
    """Return the data named by the argument or by --data. Raises UsageError for two that differ."""
    if first is not None and second is not None and first != second:
        raise UsageError(
            expected="one data folder", received=f"{first} and --data {second}", do="leave one of them out"
        )
    return first if first is not None else second
