"""Classification: an image has one class."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from foveate import files
from foveate.checks import check_least
from foveate.data import Data, DigitsOptions, PlantedOptions, Split, open_data, planted_kind
from foveate.data.images.datasets import SceneSet, image_input, reduction_for
from foveate.data.images.decode import SUFFIXES as IMAGES
from foveate.data.images.decode import Greys, read_image, shown
from foveate.data.images.working_copies import CacheOptions
from foveate.errors import DataError, UsageError, counted
from foveate.gates.maps import Maps, capture
from foveate.gates.pointing_game import play_pointing_game
from foveate.models.classifier_heads import all_but_heads
from foveate.models.hosts import build_blank
from foveate.models.weights import load_weights
from foveate.normalisation import Normalisation
from foveate.torch_utils.modes import Freezable, in_eval
from foveate.training.batches import Samples, plain_loader
from foveate.training.box_predictions import forget_boxes
from foveate.training.fit_options import FitOptions
from foveate.training.tasks import Prediction, Table, percent

MEASURE, ALSO, OF_CLASS, OBJECT = "accuracy", (), "recall", "object"
NETWORK = "image classifier"
PIPELINE = "image-classification"
MODELS = None
_ATTENTION = ("se", "cbam", "cbam-paper", "coordinate")
DEFAULTS = {
    "attention": _ATTENTION,
    "model": "resnet20",
    "where": ("residual",),
    "epochs": 10,
    "batch": 24,
    "lr": 0.002,
    "ema": 0.0,
}
DEFAULTS |= {"on_defect": "refuse"}
GENERATED = {"model": "resnet8", "epochs": 3, "lr": 0.01, "canvas": 32, "fragments": 3, "channels": 1}
GENERATED |= {"train_count": 2000, "val_count": 400, "test_count": 1500}
PLANTED = {
    "model": "pixelnet",
    "attention": ("se:reduction=2", "spatial"),
    "where": ("features",),
    "epochs": 8,
    "batch": 50,
    "lr": 0.02,
}
ONLY = {"noise": (0.0,), "channels": (None, 3)}
FIXED_VIEW, NORMALISES = True, True
VAL_OPTIONS = ()
PREDICT_OPTIONS = {"top_k": 3, "batch": 64}
SUFFIXES = IMAGES

_MAPPED = 8  # images whose maps are kept
_POINTED = 512  # images in the pointing game


def open(
    path: Path | None,
    *,
    imgsz: int | None,
    seed: int,
    augment: bool,
    on_defect: str,
    generated: Mapping[str, Any],
    split: Split | None,
    measured: str | None,
    normalisation: Normalisation | None,
    greys: Greys | None,
    cache: CacheOptions,
) -> Data:
    """Open a folder of images, planted data or embedded digits."""
    kind = planted_kind(path)
    planted = None if kind is None else PlantedOptions(kind, **generated, seed=seed)
    digits = DigitsOptions(**generated, seed=seed) if path is None else None
    common = {"imgsz": imgsz, "seed": seed, "split": split, "measured": measured, "augment": augment}
    common |= {"on_defect": on_defect, "greys": greys, "cache": cache}
    return open_data(path, **common, digits=digits, planted=planted, normalisation=normalisation)


def describe(data: Data, weights: Path | None) -> dict[str, Any]:
    """Return the description of the data."""
    return data.describe()


def build(name: str, described: Mapping[str, Any]) -> nn.Module:
    """Build a classifier for the channels, classes and image size of the data."""
    return build_blank(name, len(described["classes"]), channels=described["channels"], imgsz=described["size"])


def sample(name: str, classes: int | None, channels: int, imgsz: int | None) -> tuple[nn.Module, int | None]:
    """Build a classifier; `classes` None gives 1,000."""
    return build_blank(name, 1000 if classes is None else classes, channels=channels, imgsz=imgsz).eval(), imgsz


def load(model: nn.Module, path: Path, classes: Sequence[str]) -> None:
    """Load weights; the last layer only if it has the same number of classes."""
    load_weights(model, path, len(classes))


def collate_for(model: nn.Module, options: FitOptions) -> None:
    """Return None, for torch's own collate function."""


def begin_epoch(dataset: Samples, epoch: int, options: FitOptions) -> None:
    """Do nothing: the data set changes its views with the epoch by itself."""


def smallest(shape: tuple[int, ...], options: FitOptions) -> tuple[int, ...]:
    """Return the shape unchanged, as all images have one size."""
    return shape


def backbone(model: nn.Module, classes: int) -> Freezable:
    """Return all but the classifier's last layer."""
    return all_but_heads(model, classes)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor], options: FitOptions) -> Tensor:
    """Return the mean cross entropy (nats) of images (N, C, H, W) and labels (N,)."""
    images, labels = batch
    return F.cross_entropy(model(channels_last(images)), labels, label_smoothing=options.smoothing)


@torch.inference_mode()
def evaluate(model: nn.Module, dataset: Samples, batch: int = 128, workers: int = 0) -> dict[str, Any]:
    """Measure a classifier on every image of a data set; the modes of its modules are restored.

    Returns `{"loss", "score", "correct", "count", "confusion"}`; the confusion matrix counts images by true class
    (rows) and predicted class (columns).
    """
    device = next(model.parameters()).device
    total, confusion = 0.0, torch.zeros(0, 0, dtype=torch.int64)
    with in_eval(model):
        for images, labels in plain_loader(dataset, batch, workers):
            logits, labels = model(channels_last(images.to(device))).float(), labels.to(device)
            total += F.cross_entropy(logits, labels, reduction="sum").item()
            classes = logits.shape[1]
            pairs = (
                torch.bincount(labels * classes + logits.argmax(1), minlength=classes**2)
                .reshape(classes, classes)
                .cpu()
            )
            confusion = pairs + confusion if len(confusion) else pairs
    correct, count = int(confusion.trace()), int(confusion.sum())
    return {
        "loss": total / max(count, 1),
        "score": correct / max(count, 1),
        "correct": correct,
        "count": count,
        "confusion": confusion.tolist(),
    }


def class_scores(measured: Mapping[str, Any]) -> list[float | None]:
    """Return the recall of each class from the result of `evaluate`, None for a class without images."""
    return [row[k] / sum(row) if sum(row) else None for k, row in enumerate(measured["confusion"])]


def check(options: Mapping[str, Any]) -> None:
    """Refuse a `top_k` or a `batch` below 1."""
    for name, value in options.items():
        check_least(name, value, 1)


def figures(measured: Mapping[str, Any]) -> str:
    """Return a phrase with the number of correctly classified images."""
    return f"({measured['correct']} of {measured['count']})"


def measure(
    model: nn.Module, dataset: Any, numbers: Sequence[int], classes: Sequence[str], batch: int, workers: int
) -> dict[str, Any]:
    """Return accuracy, the confusion matrix, and recall and precision of each class."""
    return summarise(evaluate(model, _Relabelled(dataset, numbers), batch, workers)["confusion"], classes)


def summarise(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> dict[str, Any]:
    """Return the figures of a confusion matrix as plain values; a recall or precision without images is None.

    >>> result = summarise([[3, 1], [0, 4]], ["cat", "dog"])
    >>> result["accuracy"], result["classes"][0]["recall"], result["classes"][1]["precision"]
    (0.875, 0.75, 0.8)
    """
    correct, count = sum(row[k] for k, row in enumerate(confusion)), sum(map(sum, confusion))
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    rows = [
        {
            "name": name,
            "count": sum(confusion[k]),
            "correct": confusion[k][k],
            "recall": confusion[k][k] / sum(confusion[k]) if sum(confusion[k]) else None,
            "precision": confusion[k][k] / predicted[k] if predicted[k] else None,
        }
        for k, name in enumerate(classes)
    ]
    return {
        "accuracy": correct / max(count, 1),
        "correct": correct,
        "count": count,
        "classes": rows,
        "confusion": confusion,
    }


def tables(measured: Mapping[str, Any], split: str, name: str) -> tuple[str, list[Table]]:
    """Return the accuracy, and a table of the classes."""
    line = f"Accuracy on {split} of {name}: {100 * measured['accuracy']:.2f} % {figures(measured)}"
    rows = [
        [one["name"], str(one["count"]), str(one["correct"]), percent(one["recall"]), percent(one["precision"])]
        for one in measured["classes"]
    ]
    return line, [Table(("Class", "Images", "Correct", "Recall %", "Precision %"), rows)]


def write(measured: Mapping[str, Any], folder: Path) -> None:
    """Write nothing: results.json holds everything."""


def pointing_game(model: nn.Module, data: Data) -> dict[str, Any] | None:
    """Play the pointing game on the first test images; None if the places of the objects are unknown."""
    if data.boxes is None:
        return None
    images = Subset(data.test, range(min(_POINTED, len(data.test))))  # pyright: ignore[reportArgumentType]  # a map-style dataset
    return play_pointing_game(model, images, data.boxes["test"][: len(images)]) or None


def maps(model: nn.Module, data: Data, cam: bool | Mapping[str, int] = False) -> Maps:
    """Return the attention maps of a few test images with their true and predicted classes."""
    chosen = mapped_images(len(data.test))
    images = torch.stack([data.test[index][0] for index in chosen])
    boxes = None if data.boxes is None else data.boxes["test"][chosen]
    shown = np.stack([data.image("test", index) for index in chosen])
    return capture(model, shown, images, {"labels": data.test.labels[chosen]}, boxes, cam=cam)


def mapped_images(count: int) -> list[int]:
    """Return the indices of the few of `count` images whose maps are kept."""
    return np.unique(np.linspace(0, count - 1, _MAPPED).astype(int)).tolist()


def prepare(described: Mapping[str, Any], pixels: NDArray[np.uint8]) -> Tensor:
    """Return an image as the model's input, prepared as the training images were; raise UsageError for planted data."""
    size, normalisation = described["size"], Normalisation.from_dict(described.get("normalisation"), "data.json")
    if described["kind"] == "folder":
        return torch.from_numpy(image_input(pixels, size, normalisation))
    if described["kind"] == "digits":
        grey = Image.fromarray(pixels).convert("L").resize((size, size), Image.Resampling.BILINEAR)
        return SceneSet(np.asarray(grey)[None], np.zeros(1, np.int64), normalisation)[0][0]
    raise UsageError(
        expected="a model trained on digits or on a folder",
        received=f"one trained on {described['name']}",
        do="measure it with foveate val, as planted data are not files",
    )


def placed(described: Mapping[str, Any], boxes: NDArray, size: tuple[int, int]) -> NDArray:
    """Return boxes in an image as boxes in its middle square, which is the input; digits are not cropped."""
    side = np.array(size * 2 if described["kind"] == "digits" else (min(size),) * 4, float)
    offset = np.array(size * 2) / 2 - side / 2
    return ((boxes - offset) * described["size"] / side).clip(0, described["size"])


def predict(
    model: nn.Module,
    described: Mapping[str, Any],
    source: str,
    root: Path,
    names: Sequence[str],
    folder: Path,
    *,
    top_k: int,
    batch: int,
) -> Prediction:
    """Write predictions.csv: the most likely classes of each image with probabilities, or why it is unreadable."""
    classes = list(map(str, described["classes"]))
    top, read = min(top_k, len(classes)), _reader(described, root)
    batches = (names[begin : begin + batch] for begin in range(0, len(names), batch))
    rows = [row for some in batches for row in _rows(model, read, some, classes, top)]
    columns = [
        "file",
        "class",
        "probability",
        *(f"{what}_{k}" for k in range(2, top + 1) for what in ("class", "probability")),
        "error",
    ]
    forget_boxes(folder)
    path = folder / "predictions.csv"
    files.write_csv(
        path,
        [{key: shown(value) if isinstance(value, str) else value for key, value in row.items()} for row in rows],
        columns,
    )
    counts = Counter(row["class"] for row in rows if not row["error"])
    summary = f"{counted(len(rows), 'image')}: " + ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    errors = tuple(row["error"] for row in rows if row["error"])
    return Prediction({"schema": 1, "model": source, "predictions": rows}, summary, (path,), errors)


def channels_last(images: Tensor) -> Tensor:
    """Return images (N, C, H, W) channels last, which is a quarter faster on a CPU."""
    return images.contiguous(memory_format=torch.channels_last)


class _Relabelled(Dataset[Any]):
    """A data set with each label replaced by the model's number of that class."""

    def __init__(self, dataset: Samples, numbers: Sequence[int]):
        self.dataset, self.numbers = dataset, list(numbers)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.dataset[index]
        return image, self.numbers[label]


def _rows(
    model: nn.Module, read: Callable[[str], Tensor], names: Sequence[str], classes: Sequence[str], top: int
) -> Iterator[dict[str, Any]]:
    images, errors = {}, {}
    for name in names:
        try:
            images[name] = read(name)
        except DataError as error:
            errors[name] = f"expected {error.expected}; received {error.received}"
    best = {}
    if images:
        with torch.inference_mode():
            batch = channels_last(torch.stack(list(images.values())))
            chosen = model(batch.to(next(model.parameters()).device)).float().softmax(1).topk(top)
        best = dict(zip(images, zip(chosen.values.tolist(), chosen.indices.tolist(), strict=True), strict=True))
    for name in names:
        row: dict[str, Any] = {"file": name, "class": None, "probability": None, "error": errors.get(name)}
        for place, (probability, label) in enumerate(zip(*best.get(name, ((), ())), strict=True), 1):
            suffix = "" if place == 1 else f"_{place}"
            row |= {f"class{suffix}": classes[label], f"probability{suffix}": round(probability, 6)}
        yield row


def _reader(described: Mapping[str, Any], root: Path) -> Callable[[str], Tensor]:
    """Return a function that reads a file in the same way as the training images."""
    reduction = reduction_for(described["size"]) if described["kind"] == "folder" else None
    return lambda name: prepare(described, read_image(root / name, reduction=reduction, greys=described.get("greys")))
