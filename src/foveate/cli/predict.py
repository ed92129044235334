"""`foveate predict FOLDER --run RUN`: images in, a CSV of classes out, or of boxes from a detector."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli import console, flags, runs
from foveate.cli.predict_boxes import DRAWN, Looking, forget_boxes, predict_boxes
from foveate.errors import DataError, UsageError, counted

if TYPE_CHECKING:
    from torch import Tensor, nn

# What our own folders hold: a training or a study, a finished prediction of boxes, one that was cut short.
RESULTS = ({*runs.RECORDS}, {"predictions.csv", "predictions.json"}, {DRAWN})


def predict(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A folder of images (or videos, for boxes), searched through, or one file.", show_default=False
        ),
    ],
    run: flags.RunFolder,
    conf: flags.Conf = None,
    iou: flags.Iou = None,
    max_det: flags.MaxDet = None,
    every: Annotated[
        int | None,
        typer.Option(
            "--every", help="Of a video, look at each frame of this number.", min=1, rich_help_panel="Boxes (detection)", show_default=False
        ),
    ] = None,
    pictures: Annotated[
        bool | None,
        typer.Option(
            "--pictures/--no-pictures",
            help="Write the pictures with their boxes (on).",
            rich_help_panel="Boxes (detection)",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top-k", help="How many classes to tell for each image (3).", min=1, show_default=False)
    ] = None,
    batch: flags.Batch = None,
    device: flags.Device = None,
    project: flags.Project = flags.RUNS,
    name: flags.Name = None,
    exist_ok: flags.ExistOk = False,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> int:
    """Classify images, or find boxes in them and in videos; a file that does not read has its row with the reason, and the code is 3."""
    from foveate import files
    from foveate.data.images.decode import SUFFIXES
    from foveate.training import pick_device

    runs.check_name(name)
    device = pick_device(device or "auto")
    trained = runs.read_run(run)
    of_boxes = {"conf": conf, "iou": iou, "max_det": max_det, "every": every, "pictures": pictures}
    if trained.options.task == "detect":
        flags.refuse_idle("detect", top_k=top)
        looking = Looking(**{name: value for name, value in {**of_boxes, "batch": batch}.items() if value is not None})
        return _predict_boxes(trained, source, looking, device, name, project, exist_ok, json)
    flags.refuse_idle("classify", **of_boxes)
    root, paths = _find(source, SUFFIXES)
    top = min(top or 3, len(trained.classes))
    rows = list(_classify(trained, root, paths, top, batch or 64, device))
    damaged = [row for row in rows if row["error"]]
    folder = runs.new_folder(project, "predict", name or root.resolve().name or "images", exist_ok)
    columns = ["file", "class", "probability", *(f"{what}_{k}" for k in range(2, top + 1) for what in ("class", "probability")), "error"]
    forget_boxes(folder)
    files.write_csv(folder / "predictions.csv", [{key: _printable(value) for key, value in row.items()} for row in rows], columns)
    if json:
        console.say_json({"schema": 1, "model": str(trained.folder.resolve()), "predictions": rows, "run": str(folder)})
    else:
        counts = Counter(row["class"] for row in rows if not row["error"])
        console.say(f"{counted(len(rows), 'image')}: " + ", ".join(f"{count} {kind}" for kind, count in counts.most_common()), "bold")
        console.say(f"Written to {folder / 'predictions.csv'}")
    for row in damaged:
        console.note(f"Left out: {row['error']}", "yellow")
    if damaged:
        console.note(f"{len(damaged)} of {len(rows)} files are no readable images; their rows say why.", "yellow")
    if not json:
        console.say(folder)
    return DataError.exit_code if damaged else 0


def _predict_boxes(
    trained: runs.Trained, source: Path, looking: Looking, device: str, name: str | None, project: Path, exist_ok: bool, json: bool
) -> int:
    from foveate.data.images.decode import SUFFIXES
    from foveate.data.images.video import VIDEOS

    root, paths = _find(source, SUFFIXES | VIDEOS)
    model = runs.load(trained, device)
    folder = runs.new_folder(project, "predict", name or root.resolve().name or "images", exist_ok)
    record = predict_boxes(trained, model, root, paths, looking, folder)
    damaged = [image for image in record["images"] if image["error"]]
    if json:
        console.say_json({**record, "run": str(folder)})
    else:
        counts = Counter(trained.classes[one["category_id"] - 1] for one in record["annotations"])
        found = ", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "nothing"
        console.say(f"{counted(len(record['images']) - len(damaged), 'picture')}: {found}", "bold")
        console.say(f"Written to {folder / 'predictions.csv'}" + (f" and {folder / 'pictures'}" if looking.pictures else ""))
    for image in damaged:
        console.note(f"Left out: {image['error']}", "yellow")
    if not json:
        console.say(folder)
    return DataError.exit_code if damaged else 0


def _find(source: Path, suffixes: frozenset[str]) -> tuple[Path, list[str]]:
    """Return the folder and the images below it by relative path, sorted, without those of our own results. Raises DataError for none."""
    from foveate.data.images.decode import shown

    if source.is_file():
        return source.parent, [source.name]
    if not source.is_dir():
        raise DataError(expected="a folder of images, or an image", received=f"no such file: {shown(source)}", do="check the path")
    found: list[str] = []
    results = 0
    for place, folders, names in os.walk(source):
        folders.sort()
        if Path(place) != source and any(kind <= {*names} for kind in RESULTS):
            results += 1
            folders.clear()
            continue
        wanted = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes]
        found += [(Path(place) / name).relative_to(source).as_posix() for name in wanted]
    passed = f"{results} folder{'s' * (results != 1)} of earlier results passed over" if results else ""
    if not found:
        received = f"none, with {passed}" if passed else "none"
        raise DataError(expected=f"images in {shown(source)} ({', '.join(sorted(suffixes))})", received=received, do="name another folder")
    if passed:
        console.note(f"{passed}; name one to have it searched.")
    return source, sorted(found)


def _classify(trained: runs.Trained, root: Path, paths: list[str], top: int, batch: int, device: str) -> Iterator[dict[str, Any]]:
    model, read = runs.load(trained, device), _reader(trained, root)
    for begin in range(0, len(paths), batch):
        yield from _classify_batch(model, read, paths[begin : begin + batch], trained.classes, top)


def _classify_batch(
    model: "nn.Module", read: "Callable[[str], Tensor]", paths: list[str], classes: list[str], top: int
) -> Iterator[dict[str, Any]]:
    import torch

    images, errors = {}, {}
    for path in paths:
        try:
            images[path] = read(path)
        except DataError as error:
            errors[path] = f"expected {error.expected}; received {error.received}"
    best = {}
    if images:
        with torch.inference_mode():
            likely = torch.stack(list(images.values())).contiguous(memory_format=torch.channels_last)
            chosen = model(likely.to(next(model.parameters()).device)).float().softmax(1).topk(top)
        best = dict(zip(images, zip(chosen.values.tolist(), chosen.indices.tolist(), strict=True), strict=True))
    for path in paths:
        row: dict[str, Any] = {"file": path, "class": None, "probability": None, "error": errors.get(path)}
        for place, (probability, label) in enumerate(zip(*best.get(path, ((), ())), strict=True), 1):
            suffix = "" if place == 1 else f"_{place}"
            row |= {f"class{suffix}": classes[label], f"probability{suffix}": round(probability, 6)}
        yield row


def _reader(trained: runs.Trained, root: Path) -> "Callable[[str], Tensor]":
    """Return what turns a file into the model's input, as its training data did."""
    size = trained.data["size"]
    if trained.data["kind"] == "folder":
        from foveate.data.images.datasets import Memory, PhotoSet
        from foveate.data.splits import Item

        def read_photo(path: str) -> "Tensor":
            return PhotoSet(root, [Item(path, 0)], size, trained.normalisation, seed=0, augment=False, memory=Memory(0))[0][0]

        return read_photo
    if trained.data["kind"] == "digits":
        return _grey_reader(trained, root, size)
    raise UsageError(
        expected="a model trained on digits or on a folder",
        received=f"one trained on {trained.data['name']}",
        do="measure it with foveate val: planted data have no picture files to predict",
    )


def _grey_reader(trained: runs.Trained, root: Path, size: int) -> "Callable[[str], Tensor]":
    import numpy as np
    from PIL import Image

    from foveate.data.images.datasets import SceneSet
    from foveate.data.images.decode import read_image

    def read_scene(path: str) -> "Tensor":
        grey = Image.fromarray(read_image(root / path)).convert("L").resize((size, size), Image.Resampling.BILINEAR)
        return SceneSet(np.asarray(grey)[None], np.zeros(1, np.int64), trained.normalisation)[0][0]

    return read_scene


def _printable(value: Any) -> Any:
    from foveate.data.images.decode import shown

    return shown(value) if isinstance(value, str) else value
