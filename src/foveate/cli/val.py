"""`foveate val --run RUN`: how well a trained model does on data, whole and class by class."""

import filecmp
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from foveate.cli import console, flags, runs
from foveate.cli.val_boxes import measure_boxes, percent, renumbered, show_boxes, thresholds, write_boxes
from foveate.errors import DataError, UsageError

if TYPE_CHECKING:
    from foveate.data.splits import Item
    from foveate.studies.gate_measures import AnyData

SPLITS = ("val", "test")


def val(
    run: flags.RunFolder,
    data_folder: flags.DataFolder = None,
    data: flags.Data = None,
    split: Annotated[str, typer.Option("--split", help="val or test.")] = "test",
    conf: flags.Conf = None,
    iou: flags.Iou = None,
    max_det: flags.MaxDet = None,
    batch: flags.Batch = None,
    workers: flags.Workers = None,
    device: flags.Device = None,
    project: flags.Project = flags.RUNS,
    name: flags.Name = None,
    exist_ok: flags.ExistOk = False,
    json: flags.Json = False,
    config: flags.Config = None,
    debug: flags.Debug = False,
) -> None:
    """Measure a trained model on its data, or on other data of the same classes or some of them."""
    from foveate import files
    from foveate.training import pick_device

    if split not in SPLITS:
        raise UsageError(expected="--split val or test", received=repr(split), do="val chose the epoch; test is the honest one")
    runs.check_name(name)
    device = pick_device(device or "auto")
    trained = runs.read_run(run)
    boxes = trained.options.task == "detect"
    if not boxes:
        flags.refuse_idle("classify", conf=conf, iou=iou, max_det=max_det)
    chosen = thresholds(conf, iou, max_det) if boxes else {}
    other = flags.data_folder(data_folder, data)
    opened = _open(trained, other, split)
    _require_known(trained, opened)
    _require_pictures(opened, split)
    if other is not None:
        console.note(f"{opened.name}: {opened.details['layout']}.")
    if other is None and opened.fingerprint != trained.data["fingerprint"]:
        console.note("The data have changed since the model was trained.", "yellow")
    result = _measure(trained, opened, split, batch or trained.options.resolved().batch or 1, workers or 0, device, chosen)
    folder = runs.new_folder(project, "val", name or trained.folder.resolve().name, exist_ok)
    record = {
        "schema": 1,
        "model": str(trained.folder.resolve()),
        "data": opened.name,
        "split": split,
        "layout": opened.details["layout"],
        **result,
    }
    files.write_json(folder / "results.json", record)
    if boxes:
        write_boxes(result, folder)
    if json:
        console.say_json({**record, "run": str(folder)})
        return
    (show_boxes if boxes else _show)(result, split, opened.name)
    console.say(folder)


def summarise(table: list[list[int]], names: list[str]) -> dict[str, Any]:
    """Return the figures of a confusion table, JSON-able; a recall or precision of nothing is None.

    >>> result = summarise([[3, 1], [0, 4]], ["cat", "dog"])
    >>> result["accuracy"], result["classes"][0]["recall"], result["classes"][1]["precision"]
    (0.875, 0.75, 0.8)
    """
    correct, count = sum(row[k] for k, row in enumerate(table)), sum(map(sum, table))
    predicted = [sum(column) for column in zip(*table, strict=True)]
    classes = [
        {
            "name": name,
            "count": sum(table[k]),
            "correct": table[k][k],
            "recall": table[k][k] / sum(table[k]) if sum(table[k]) else None,
            "precision": table[k][k] / predicted[k] if predicted[k] else None,
        }
        for k, name in enumerate(names)
    ]
    return {"accuracy": correct / max(count, 1), "correct": correct, "count": count, "classes": classes, "confusion": table}


def _open(trained: runs.Trained, other: Path | None, split: str) -> "AnyData":
    """Open the run's data in the splits of then, or other data as they are split; of what is not split, all is measured."""
    from foveate.studies.trial import open_study_data

    asked, own, seen = replace(trained.options, imgsz=trained.data["size"]), trained.split, trained.normalisation
    if other is None or trained.trained_on(other):
        _require_folder(asked.data)
        return open_study_data(asked, own, split if own else None, seen)
    asked = asked.on_folder(other)
    opened = open_study_data(asked, None, split, seen if len(seen.mean) == 3 else None)  # photos are refused for a model of grey digits
    if own is None or opened.split is None:
        return opened
    shown, learnt = _names(getattr(opened.split, split)), _names(own.train)
    if not shown & learnt:
        return opened
    known = _names(own.items)
    if _same_files(trained.options.data, other, shown & learnt, otherwise=shown <= known or known <= shown):
        console.note(f"{opened.name} is a copy of the run's own data, by its file names, so what was learnt from is left out.", "yellow")
        return open_study_data(asked, own, split, seen)
    told = f"{len(shown & learnt)} pictures of {opened.name} have names of pictures that were learnt from"
    console.note(f"{told}; if they are the same ones, the result is too kind.", "yellow")
    return opened


def _names(items: "Iterable[Item]") -> set[str]:
    return {item.path for item in items}


def _same_files(own: Path | None, other: Path, names: Iterable[str], *, otherwise: bool) -> bool:
    """Whether two folders agree in the files of these names that both have; `otherwise` where the first has none any more."""
    pairs = [(own / name, other / name) for name in names if own is not None and (own / name).is_file()]
    return all(filecmp.cmp(*pair, shallow=False) for pair in pairs) if pairs else otherwise


def _measure(
    trained: runs.Trained, opened: "AnyData", split: str, batch: int, workers: int, device: str, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    dataset, numbers = getattr(opened, split), [trained.classes.index(name) for name in opened.classes]
    if trained.options.task == "detect":
        return measure_boxes(trained, renumbered(dataset, numbers), batch, workers, device, chosen)
    from foveate.training import evaluate

    counted = evaluate(runs.load(trained, device), dataset, batch, workers)["confusion"]
    of_class = dict(zip(numbers, counted, strict=False))  # the data may lack some of the model's classes
    nothing = [0] * len(trained.classes)
    return summarise([of_class.get(number, nothing) for number in range(len(trained.classes))], trained.classes)


def _show(result: Mapping[str, Any], split: str, name: str) -> None:
    """Print the accuracy, and how each class does."""
    console.say(f"Accuracy on {split} of {name}: {100 * result['accuracy']:.2f} % ({result['correct']} of {result['count']})", "bold")
    rows = [
        [one["name"], str(one["count"]), str(one["correct"]), percent(one["recall"]), percent(one["precision"])]
        for one in result["classes"]
    ]
    console.say_table(("Class", "Images", "Correct", "Recall %", "Precision %"), rows)


def _require_folder(own: Path | None) -> None:
    """Refuse to look for the run's own data where they are not any more."""
    from foveate.data import planted_kind
    from foveate.data.images.decode import shown

    if own is not None and planted_kind(own) is None and not own.is_dir():
        raise DataError(
            expected=f"the data of the run at {shown(own.resolve())}",
            received="no such folder",
            do="name the data where they are now: foveate val DATA --run RUN",
        )


def _require_pictures(opened: "AnyData", split: str) -> None:
    """Refuse to measure nothing: a run's own split may have lost its pictures."""
    if not len(getattr(opened, split)):
        raise DataError(
            expected=f"pictures for {split} in {opened.name}",
            received=f"none of the run's {split} pictures; those that are there belong to its other splits",
            do="put them back (data.json of the run names them), or name other data",
        )


def _require_known(trained: runs.Trained, opened: "AnyData") -> None:
    """Refuse data that the model was not taught to see."""
    if unknown := sorted(set(opened.classes) - set(trained.classes)):
        raise DataError(
            expected=f"classes that the model knows: {', '.join(trained.classes)}",
            received=", ".join(unknown),
            do="leave out what is of other classes",
        )
    if trained.options.task == "classify" and opened.details["kind"] != trained.data["kind"]:
        raise UsageError(
            expected=f"pictures prepared as the model's own were, {trained.data['name']}",
            received=f"the photos of {opened.name}",
            do="foveate predict prepares them so; or train on a folder of photos",
        )
