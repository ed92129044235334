"""`foveate export RUN_OR_MODEL`: write a model to a file for other runtimes, run the file again, and compare."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli import console, flags
from foveate.cli.plan import Channels, Classes
from foveate.cli.predict import find
from foveate.cli.run_or_model import open_run_or_model
from foveate.errors import UsageError, counted

if TYPE_CHECKING:
    from torch import Tensor

MOST = 200  # images that the file and the model are compared on

Format = Annotated[str, typer.Option("--format", help="onnx, openvino, litert or torch.")]
TargetOption = Annotated[
    str | None,
    flags.option(
        "--target",
        help="Use the operators that this target runs well: onnxruntime, openvino, tensorrt, coreml, rk3588.",
    ),
]
BoxesOption = Annotated[
    str | None,
    flags.option(
        "--boxes",
        help="What a detector's file returns: outputs (of the network), decoded or nms (default where possible).",
        panel=flags.BOXES,
    ),
]
Images = Annotated[
    Path | None, flags.option("--images", help="Folder of images, to compare the file on them too.", metavar="FOLDER")
]
Int8 = Annotated[
    bool,
    typer.Option(
        "--int8",
        help="Quantise the file, calibrated on --images or else on the run's val images; attention stays in float.",
    ),
]
Fold = Annotated[
    bool,
    typer.Option(
        "--fold",
        help="Merge constant attention into the layer before it; constant over --images, or else over the run's val "
        "images.",
    ),
]
Static = Annotated[bool, typer.Option("--static", help="Fix batch, height and width to those of the example.")]


def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL", help=f"The folder of a trained model, or {flags.MODELS}", show_default=False
        ),
    ],
    format: Format = "onnx",
    target: TargetOption = None,
    attention: flags.Attention = None,
    where: flags.Where = None,
    weights: flags.Weights = None,
    imgsz: flags.Imgsz = None,
    channels: Channels = 3,
    classes: Classes = None,
    static: Static = False,
    images: Images = None,
    fold: Fold = False,
    int8: Int8 = False,
    boxes: BoxesOption = None,
    conf: flags.Conf = None,
    iou: flags.Iou = None,
    max_det: flags.MaxDet = None,
    project: flags.Project = flags.RUNS,
    name: flags.Name = None,
    exist_ok: flags.ExistOk = False,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> None:
    """Write a model to a file for other runtimes, run the file, and compare it with the model.

    If they compute different results, the exit code is 5 and the name of the file ends with .unverified.
    """
    from foveate.experiment import run_folder
    from foveate.exporting.formats import named
    from foveate.exporting.targets import check_target

    run_folder.check_name(name)
    made = named(format)
    check_target(target, format)
    given = {"attention": attention, "where": where, "weights": weights, "imgsz": imgsz, "classes": classes}
    opened = open_run_or_model(model, given, channels)
    host = opened.model
    if opened.run is None and weights is None:
        console.note("No --weights: the file has the weights that the model begins with.", "yellow")
    limits: dict[str, Any] = {
        key: value for key, value in (("conf", conf), ("iou", iou), ("max_det", max_det)) if value is not None
    }
    if getattr(host, "heads", None):
        boxes = boxes or ("nms" if made.NMS else "decoded")
    elif boxes or limits:
        raise UsageError(
            expected="--boxes and its limits for a detector", received=f"{model}, a classifier", do="leave them out"
        )
    compared = None if images is None else _prepared(images, opened.prepare)
    measure = None
    if (fold or int8) and opened.run is not None:
        from foveate.exporting.quantise import calibration_of, measurer, run_data

        data = run_data(opened.run)
        compared = calibration_of(data) if compared is None else compared
        measure = measurer(opened.run, data) if int8 else None
    title = name or Path(model.partition(":")[0]).resolve().stem
    folder = run_folder.new_folder(project, "export", title, exist_ok)
    from foveate.exporting.exported import export

    done = export(
        host,
        folder / f"{title}{made.SUFFIX}",
        opened.example,
        target=target,
        dynamic=not static,
        boxes=boxes or "outputs",  # pyright: ignore[reportArgumentType]  # checked by export
        images=compared,
        fold=fold,
        int8=int8,
        measure=measure,
        about=opened.about,
        **limits,
    )
    if json:
        console.say_json({**done.record, "file": str(done.path)})
        return
    for line in done.lines():
        console.say_prose(line)
    console.say(done.path)


def _prepared(images: Path, prepare: Any) -> "Tensor":
    """Return the first images of a folder as inputs of the model."""
    import torch

    from foveate.data.images.decode import SUFFIXES

    root, names = find(str(images), SUFFIXES)
    if len(names) > MOST:
        console.note(f"Compared on the first {MOST} of {counted(len(names), 'image')}.")
    return torch.cat([prepare(root / name) for name in itertools.islice(names, MOST)])
