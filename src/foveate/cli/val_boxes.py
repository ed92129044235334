"""What `foveate val` does with a detector: COCO's numbers, class by class, with curves and confusions."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.cli import console
from foveate.cli.runs import Trained, load
from foveate.errors import counted

if TYPE_CHECKING:
    from foveate.data.boxes.box_set import BoxSet

NUMBERS = {"ap50": "AP50", "ap75": "AP75", "ap": "mAP", "ar_100": "Recall"}


def thresholds(conf: float | None, iou: float | None, max_det: int | None) -> dict[str, Any]:
    """Return what `evaluate` selects and counts boxes with, its own where None. Raises UsageError for what selects nothing."""
    from foveate.detection import CONF as COUNTED
    from foveate.detection.nms import check_thresholds
    from foveate.training.detect import CONF, IOU, MAX_DET

    chosen = (CONF if conf is None else conf, IOU if iou is None else iou, MAX_DET if max_det is None else max_det)
    check_thresholds(*chosen)
    return {**dict(zip(("conf", "iou", "max_det"), chosen, strict=True)), "counted": COUNTED if conf is None else conf}


def measure_boxes(trained: Trained, dataset: "BoxSet", batch: int, workers: int, device: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of a detector on a data set, by the `thresholds` that were chosen."""
    from foveate.training.detect import evaluate

    result = evaluate(load(trained, device), dataset, batch, workers, **chosen)
    return {
        **result,
        "thresholds": dict(chosen),
        "classes": [{"name": name, **one} for name, one in zip(trained.classes, result["classes"], strict=True)],
    }


def renumbered(dataset: "BoxSet", numbers: Sequence[int]) -> "BoxSet":
    """Return the data set with its labels as `numbers` has them: a model may know more classes than the data have."""
    import numpy as np

    known, moved = np.array(numbers, np.int64), copy.copy(dataset)
    moved.pictures = tuple(replace(picture, labels=known[picture.labels]) for picture in dataset.pictures)
    return moved


def show_boxes(result: Mapping[str, Any], split: str, name: str) -> None:
    """Print the figures, and what each class was taken for."""
    from foveate.detection.confusion import OVERLAP

    told = ", ".join(f"{title} {percent(result['coco'][key])} %" for key, title in NUMBERS.items())
    console.say(f"{split} of {name}, {counted(result['count'], 'picture')}: {told}", "bold")
    rows = [[one["name"], str(one["truths"]), percent(one["ap50"]), percent(one["ap"])] for one in result["classes"]]
    console.say_table(("Class", "Boxes", "AP50 %", "mAP %"), rows)
    names = [one["name"] for one in result["classes"]]
    matrix = [[one, *map(str, row)] for one, row in zip([*names, "(background)"], result["confusion"], strict=True)]
    above = f"above confidence {result['thresholds']['counted']:g} and with an IoU above {OVERLAP:g}"
    console.say(f"What there is (rows) and what was found (columns), {above}:")
    console.say_table(("", *names, "(missed)"), matrix)


def write_boxes(result: Mapping[str, Any], folder: Path) -> None:
    """Write the precision-recall curves and the confusion matrix as tables beside results.json, and as plots."""
    from foveate import files
    from foveate.data.images.decode import shown
    from foveate.report import boxes

    names = [shown(one["name"]) for one in result["classes"]]
    curves = ((k / 100, *column) for k, column in enumerate(zip(*result["precision"], strict=True)))
    files.write_table(folder / "precision_recall.csv", ["recall", *names], curves)
    confusion = ((name, *row) for name, row in zip([*names, "(background)"], result["confusion"], strict=True))
    files.write_table(folder / "confusion.csv", ["true", *names, "(missed)"], confusion)
    classes = [{**one, "name": name} for one, name in zip(result["classes"], names, strict=True)]
    for plot in (boxes.precision_recall(classes, result["precision"]), boxes.confusion(names, result["confusion"])):
        files.write_bytes(folder / "plots" / f"{plot.name}.svg", plot.file.encode())


def percent(share: float | None) -> str:
    """Write a share in 0..1 as a cell of a table under a heading with %."""
    return "–" if share is None else f"{100 * share:.1f}"
