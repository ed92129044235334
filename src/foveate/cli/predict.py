"""`foveate predict FOLDER --run RUN`: read images, write a CSV of their classes, or of boxes from a detector."""

import os
from pathlib import Path
from typing import Annotated

import typer

from foveate.cli import console, flags
from foveate.errors import DataError, counted


def predict(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of images (or videos, for a detector), searched with its subfolders; or one file.",
            show_default=False,
        ),
    ],
    run: flags.RunFolder,
    conf: flags.Conf = None,
    iou: flags.Iou = None,
    max_det: flags.MaxDet = None,
    every: Annotated[
        int | None,
        typer.Option(
            "--every",
            help="Look at every N-th frame of a video.",
            min=1,
            rich_help_panel="Boxes (detection)",
            show_default=False,
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
        int | None,
        typer.Option("--top-k", help="How many classes to report for each image (3).", min=1, show_default=False),
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
    """Classify images, or find boxes in images and videos.

    A file that cannot be read gets a row with the reason, and the exit code is 3.
    """
    from foveate.experiment import run_folder
    from foveate.training import pick_device

    run_folder.check_name(name)
    device = pick_device(device or "auto")
    trained = run_folder.read_run(run)
    what = trained.options.what
    given = {
        "conf": conf,
        "iou": iou,
        "max_det": max_det,
        "every": every,
        "pictures": pictures,
        "top_k": top,
        "batch": batch,
    }
    options = {**what.PREDICT_OPTIONS, **flags.of_task(trained.options.task, what.PREDICT_OPTIONS, given)}
    what.check(options)
    root, names = _find(source, what.SUFFIXES)
    model = run_folder.load_model(trained, device)
    folder = run_folder.new_folder(project, "predict", name or root.resolve().name or "images", exist_ok)
    made = what.predict(model, trained.data, str(trained.folder.resolve()), root, names, folder, **options)
    if json:
        console.say_json({**made.record, "run": str(folder)})
    else:
        console.say(made.summary, "bold")
        console.say(f"Written to {' and '.join(map(str, made.written))}")
    for error in made.errors:
        console.note(f"Left out: {error}", "yellow")
    if made.errors:
        console.note(f"{len(made.errors)} of {len(names)} files could not be read; their rows say why.", "yellow")
    if not json:
        console.say(folder)
    return DataError.exit_code if made.errors else 0


def _find(source: Path, suffixes: frozenset[str]) -> tuple[Path, list[str]]:
    """Return the folder and the relative paths of its images, sorted, without those in folders of our own results.

    Raises DataError for none.
    """
    from foveate.data.images.decode import shown
    from foveate.experiment.run_folder import RECORDS
    from foveate.training.box_predictions import DRAWN

    # Files that show a folder is ours: of a training or a study, of predicted boxes, of an interrupted prediction.
    own = ({*RECORDS}, {"predictions.csv", "predictions.json"}, {DRAWN})
    if source.is_file():
        return source.parent, [source.name]
    if not source.is_dir():
        raise DataError(
            expected="a folder of images, or an image", received=f"no such file: {shown(source)}", do="check the path"
        )
    found: list[str] = []
    results = 0
    for place, folders, names in os.walk(source):
        folders.sort()
        if Path(place) != source and any(kind <= {*names} for kind in own):
            results += 1
            folders.clear()
            continue
        wanted = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes]
        found += [(Path(place) / name).relative_to(source).as_posix() for name in wanted]
    skipped = f"{counted(results, 'folder')} of earlier results skipped" if results else ""
    if not found:
        received = f"none, with {skipped}" if skipped else "none"
        raise DataError(
            expected=f"images in {shown(source)} ({', '.join(sorted(suffixes))})",
            received=received,
            do="name another folder",
        )
    if skipped:
        console.note(f"{skipped}; name one to search it.")
    return source, sorted(found)
