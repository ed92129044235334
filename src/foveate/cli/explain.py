"""`foveate explain RUN_OR_MODEL IMAGES...`: the attention of models over images, as pictures, numbers and a page."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli import console, flags
from foveate.errors import UsageError, counted

if TYPE_CHECKING:
    from torch import nn

    from foveate.gates.explanation import Explanation

_MODEL = "Model (without a run)"
_SHOWN = 12  # dead gates


def explain(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_MODEL",
            help="Folder of a run, a trial or a study; or a model by name, as in foveate plan.",
            show_default=False,
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES...",
            help="Files and folders. Without any: test images of the run, with their boxes where these are known.",
            show_default=False,
        ),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option("--arms", help="Arms of a study, such as se,cbam-identity__residual (all).", show_default=False),
    ] = None,
    grad_cam: Annotated[
        bool | None,
        typer.Option("--grad-cam/--no-grad-cam", help="Grad-CAM too (where captum is installed).", show_default=False),
    ] = None,
    cam_classes: Annotated[
        str | None,
        typer.Option("--cam-classes", help="Grad-CAM of these classes instead of the prediction.", show_default=False),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option("--weights", help="Weights of the model.", rich_help_panel=_MODEL, show_default=False),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", help="Attention for it, a file.", rich_help_panel=_MODEL, show_default=False),
    ] = None,
    classes: Annotated[
        int, typer.Option("--classes", help="Classes of its output.", rich_help_panel=_MODEL, min=1)
    ] = 1000,
    imgsz: Annotated[
        int, typer.Option("--imgsz", help="Side of its input in pixels.", rich_help_panel=_MODEL, min=16)
    ] = 224,
    batch: flags.MeasuringBatch = None,
    device: flags.Device = None,
    project: flags.Project = flags.RUNS,
    name: flags.Name = None,
    exist_ok: flags.ExistOk = False,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> None:
    """Show where models look in your images: overlays, channel gates, Grad-CAM, numbers, dead gates, and a page."""
    from foveate.experiment import run_folder
    from foveate.training import pick_device
    from foveate.verbs import explain as explain_models

    run_folder.check_name(name)
    place, chosen = Path(model), pick_device(device or "auto")
    own = {"weights": weights, "adapter": adapter}
    if place.is_dir() and any(own.values()):
        given = " and ".join(f"--{option}" for option, path in own.items() if path)
        raise UsageError(expected="the options of a run", received=f"{given} for {place}", do="leave it out")
    if cam_classes is not None and grad_cam is False:
        raise UsageError(expected="Grad-CAM, or none", received="--cam-classes and --no-grad-cam", do="leave one out")
    explanation = explain_models(
        place if place.is_dir() else _build(model, weights, adapter, classes, imgsz, chosen),
        images or None,
        arms=_names(arms),
        grad_cam=_names(cam_classes) or grad_cam,
        imgsz=imgsz,
        batch=batch or 16,
        device=chosen,
    )
    stem = place.resolve().name if place.is_dir() else place.name.partition(":")[0] or "model"
    folder = run_folder.new_folder(project, "explain", name or stem, exist_ok)
    page = explanation.save(folder)
    if json:
        console.say_json({"schema": 1, "model": model, **_record(explanation), "page": str(page), "run": str(folder)})
        return
    _say(explanation)
    console.say(f"Written to {page}, {folder / 'pictures'} and {folder / 'numbers.csv'}")
    console.say(folder)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [one.strip() for one in text.split(",")]


def _build(name: str, weights: Path | None, adapter: Path | None, classes: int, imgsz: int, device: str) -> "nn.Module":
    """Build a model by name, with its attention. Raises UsageError and DataError."""
    from foveate.models.hosts import build
    from foveate.surgery import load_adapter

    model = build(name, classes, weights=weights, imgsz=imgsz).eval()
    if adapter is not None:
        load_adapter(model, adapter, example=(1, 3, imgsz, imgsz))
    return model.to(device)


def _record(explanation: "Explanation") -> dict[str, Any]:
    return {
        "images": list(explanation.names),
        "arms": list(explanation.arms),
        "numbers": explanation.numbers,
        "dead": explanation.dead,
        "notes": list(explanation.notes),
    }


def _say(explanation: "Explanation") -> None:
    seen, arms = counted(len(explanation.names), "image"), counted(len(explanation.arms), "arm")
    console.say(f"{seen}, {arms}: {', '.join(explanation.arms)}", "bold")
    headings = ("Arm", "Layer", "Gate", "Inside %", "Area %", "Entropy", "Saturated %")
    console.say_table(headings, _rows(explanation.numbers), left=3)
    for one in explanation.dead[:_SHOWN]:
        console.note(f"Dead gate: {one}", "yellow")
    if (more := len(explanation.dead) - _SHOWN) > 0:
        console.note(f"{more} more dead gates: numbers.csv names them.", "yellow")
    for note in explanation.notes:
        console.note(note)


def _rows(numbers: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Yield a row for each gate, with the means over the images."""
    gates: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in numbers:
        gates.setdefault((row["arm"], row["layer"], row["gate"]), []).append(row)
    for names, rows in gates.items():
        means = {key: _mean([row[key] for row in rows]) for key in ("inside", "area", "entropy", "saturated")}
        yield [*names, *(_cell(key, value) for key, value in means.items())]


def _cell(key: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if key == "entropy" else f"{100 * value:.1f}"


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
