"""`foveate val --run RUN`: measure a trained model on data, as a whole and class by class."""

import filecmp
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli import console, flags
from foveate.errors import DataError, UsageError

if TYPE_CHECKING:
    from foveate.data import AnyData
    from foveate.data.splits import Item
    from foveate.experiment.run_folder import TrainedRun

SPLITS = ("val", "test")


def val(
    run: flags.RunFolder,
    data_folder: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="Data to measure on. Default: the data of the run.", show_default=False),
    ] = None,
    data: flags.Data = None,
    split: Annotated[str, typer.Option("--split", help="val or test.")] = "test",
    conf: flags.Conf = None,
    iou: flags.Iou = None,
    max_det: flags.MaxDet = None,
    batch: flags.MeasuringBatch = None,
    workers: flags.Workers = None,
    device: flags.Device = None,
    project: flags.Project = flags.RUNS,
    name: flags.Name = None,
    exist_ok: flags.ExistOk = False,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> None:
    """Measure a trained model on its data, or on other data with all or some of its classes."""
    from foveate import files
    from foveate.experiment import run_folder
    from foveate.training import pick_device

    if split not in SPLITS:
        raise UsageError(
            expected="--split val or test", received=repr(split), do="use test: val was used to choose the epoch"
        )
    run_folder.check_name(name)
    device = pick_device(device or "auto")
    trained = run_folder.read_run(run)
    what = trained.options.what
    chosen = flags.of_task(trained.options.task, what.VAL_OPTIONS, {"conf": conf, "iou": iou, "max_det": max_det})
    what.check(chosen)
    other = flags.data_folder(data_folder, data)
    opened = _open(trained, other, split)
    _require_known(trained, opened)
    _require_images(opened, split)
    if other is None and opened.fingerprint != trained.data["fingerprint"]:
        console.note("The data have changed since the model was trained.", "yellow")
    numbers = [trained.classes.index(one) for one in opened.classes]
    dataset, size = getattr(opened, split), batch or trained.options.batch
    result = what.measure(
        run_folder.load_model(trained, device), dataset, numbers, trained.classes, size, workers or 0, **chosen
    )
    folder = run_folder.new_folder(project, "val", name or trained.folder.resolve().name, exist_ok)
    record = {
        "schema": 1,
        "model": str(trained.folder.resolve()),
        "data": opened.name,
        "split": split,
        "layout": opened.details["layout"],
        **result,
    }
    files.write_json(folder / "results.json", record)
    what.write(result, folder)
    _write_plots(result, folder)
    if json:
        console.say_json({**record, "run": str(folder)})
        return
    line, tables = what.tables(result, split, opened.name)
    console.say(line, "bold")
    for table in tables:
        if table.caption:
            console.say(table.caption)
        console.say_table(table.headings, table.rows)
    console.say(folder)


def _write_plots(result: Mapping[str, Any], folder: Path) -> None:
    """Draw a detector's precision-recall curves and confusion matrix, if the result has them."""
    if "precision" not in result:
        return
    from foveate import files
    from foveate.data.images.decode import shown
    from foveate.report.confusion_plots import confusion, precision_recall

    names = [shown(one["name"]) for one in result["classes"]]
    classes = [{**one, "name": name} for one, name in zip(result["classes"], names, strict=True)]
    for plot in (precision_recall(classes, result["precision"]), confusion(names, result["confusion"])):
        files.write_bytes(folder / "plots" / f"{plot.name}.svg", plot.file.encode())


def _open(trained: "TrainedRun", other: Path | None, split: str) -> "AnyData":
    """Open the run's data with its splits, or other data with their own; data without splits are measured whole."""
    from foveate.experiment.data import open_study_data

    asked, own, seen = replace(trained.options, imgsz=trained.data["size"]), trained.split, trained.normalisation
    greys = trained.greys
    if other is None or trained.trained_on(other):
        _require_folder(asked.data)
        return trained.open_data(split if own else None)
    asked = asked.on_folder(other)
    kept = seen if len(seen.mean) == 3 else None  # a folder for a model of grey digits is refused later
    opened = open_study_data(asked, None, split, kept, greys)
    if own is None or opened.split is None:
        return opened
    shown, learnt = _names(getattr(opened.split, split)), _names(own.train)
    if not shown & learnt:
        return opened
    known = _names(own.items)
    if _same_files(trained.options.data, other, shown & learnt, otherwise=shown <= known or known <= shown):
        console.note(
            f"By its file names, {opened.name} is a copy of the run's own data, so training images are left out.",
            "yellow",
        )
        return open_study_data(asked, own, split, seen, greys)
    same = f"{len(shown & learnt)} images of {opened.name} have the names of training images"
    console.note(f"{same}; if they are the same images, the result is too high.", "yellow")
    return opened


def _names(items: "Iterable[Item]") -> set[str]:
    return {item.path for item in items}


def _same_files(own: Path | None, other: Path, names: Iterable[str], *, otherwise: bool) -> bool:
    """Return whether files of these names are equal in both folders; `otherwise` if none is left in the first."""
    pairs = [(own / name, other / name) for name in names if own is not None and (own / name).is_file()]
    return all(filecmp.cmp(*pair, shallow=False) for pair in pairs) if pairs else otherwise


def _require_folder(own: Path | None) -> None:
    """Raise DataError if the folder of the run's own data is gone."""
    from foveate.data import planted_kind
    from foveate.data.images.decode import shown

    if own is not None and planted_kind(own) is None and not own.is_dir():
        raise DataError(
            expected=f"the data of the run at {shown(own.resolve())}",
            received="no such folder",
            do="give their new folder: foveate val DATA --run RUN",
        )


def _require_images(opened: "AnyData", split: str) -> None:
    """Raise DataError if no image of the split is left."""
    if not len(getattr(opened, split)):
        raise DataError(
            expected=f"images for {split} in {opened.name}",
            received=f"none of the run's {split} images; those found belong to its other splits",
            do="put them back (data.json of the run names them), or name other data",
        )


def _require_known(trained: "TrainedRun", opened: "AnyData") -> None:
    """Raise an error for classes or kinds of data that the model was not trained on."""
    if unknown := sorted(set(opened.classes) - set(trained.classes)):
        raise DataError(
            expected=f"classes that the model knows: {', '.join(trained.classes)}",
            received=", ".join(unknown),
            do="remove the other classes from the data",
        )
    if trained.options.what.NORMALISES and opened.details["kind"] != trained.data["kind"]:
        raise UsageError(
            expected=f"images prepared like the model's training data, {trained.data['name']}",
            received=f"the images of {opened.name}",
            do="use foveate predict, which prepares images in the same way, or train on a folder of images",
        )
