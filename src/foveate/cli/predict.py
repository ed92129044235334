"""`foveate predict FOLDER --run RUN`: read images, write a CSV of their classes, or of boxes from a detector."""

import glob
import os
import re
from pathlib import Path
from typing import Annotated

import typer

from foveate.cli import console, flags
from foveate.errors import DataError, counted


def predict(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="Folder of images (for a detector also of videos) with its subfolders, one file, or a pattern in "
            "quotes such as 'photos/*.jpg'.",
            show_default=False,
        ),
    ],
    run: flags.RunFolder,
    conf: flags.Conf = None,
    iou: flags.Iou = None,
    max_det: flags.MaxDet = None,
    every: Annotated[
        int | None, flags.option("--every", help="Look at every N-th frame of a video.", panel=flags.BOXES, min=1)
    ] = None,
    pictures: Annotated[
        bool | None,
        flags.option(
            "--pictures/--no-pictures", help="Write each image with its boxes drawn into it (on).", panel=flags.BOXES
        ),
    ] = None,
    top: Annotated[
        int | None, flags.option("--top-k", help="How many classes to report for each image (3).", min=1)
    ] = None,
    batch: flags.MeasuringBatch = None,
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
    root, names = find(source, what.SUFFIXES)
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


def find(place: str, suffixes: frozenset[str]) -> tuple[Path, list[str]]:
    """Return a folder and the relative paths of the images in it, sorted; `place` is a folder, a file or a pattern.

    Images in folders of our own results are left out. Raises DataError for none.
    """
    from foveate.data.images.decode import shown
    from foveate.experiment.sources import images_in

    source = Path(place)
    if source.is_file():
        return source.parent, [source.name]
    if not source.is_dir():
        return _match(place, suffixes)
    found, results = images_in(source, suffixes)
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
    return source, found


def _match(place: str, suffixes: frozenset[str]) -> tuple[Path, list[str]]:
    """Return the common folder of the images that a pattern matches, and their relative paths, sorted.

    Raises DataError for none, for a stream and for a camera.
    """
    from foveate.data.images.decode import shown

    wanted = "a folder of images, an image, or a pattern such as 'photos/*.jpg'"
    if place.isdecimal() or re.match(r"\w+://", place):
        kind = "the number of a camera" if place.isdecimal() else "the address of a stream"
        do = "record it to a file first, and predict that file (a video for a detector, images for a classifier)"
        raise DataError(expected=f"{wanted}: files only", received=f"{shown(place)}, {kind}", do=do)
    if not glob.has_magic(place):
        raise DataError(expected=wanted, received=f"no such file: {shown(place)}", do="check the path")
    matches = [Path(path) for path in glob.glob(place, recursive=True) if Path(path).is_file()]  # noqa: PTH207
    found = [path for path in matches if path.suffix.lower() in suffixes]
    if not found:
        others = f"{counted(len(matches), 'file')} of other kinds" if matches else "no file"
        raise DataError(
            expected=f"images that match {shown(place)} ({', '.join(sorted(suffixes))})",
            received=others,
            do="check the pattern; ** stands for any folders",
        )
    root = Path(os.path.commonpath([path.parent for path in found]) or ".")
    return root, sorted(path.relative_to(root).as_posix() for path in found)
