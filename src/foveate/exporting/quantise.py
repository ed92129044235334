"""INT8 by the runtimes' own post-training quantisers, calibrated on images; attention stays in float."""

import importlib.metadata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foveate.errors import DataError, UsageError
from foveate.experiment.run_folder import LoadedRun
from foveate.exporting.formats import Format, Runner
from foveate.exporting.subject import Subject, Thresholds
from foveate.exporting.verify import TOLERANCE, agreements, compare

CALIBRATION = 200  # images that a quantiser sees
LEAST = 8  # images of a calibration


def check_int8(name: str, made: Format, subject: Subject, images: Tensor | None) -> Tensor:
    """Return the images of a calibration. Raises UsageError without enough of them, or for a format without INT8."""
    if made.quantise is None:
        raise UsageError(
            expected="a format with a quantiser: onnx or openvino",
            received=f"int8=True for {name}",
            do="leave int8 out",
        )
    if images is None or len(images) < LEAST or len(subject.inputs) != 1:
        received = "no images" if images is None else f"{len(images)} images, {len(subject.inputs)} inputs"
        raise UsageError(
            expected=f"{LEAST} images or more to calibrate a model of one input with",
            received=received,
            do="pass images=, prepared as for the model",
        )
    return images[:CALIBRATION]


def quantised(
    made: Format,
    float_file: Path,
    subject: Subject,
    images: Tensor,
    limits: Thresholds,
    measure: Callable[[Runner], float] | None = None,
) -> dict[str, Any]:
    """Replace a file by its INT8 form, and return what this changes.

    `agreement` is the share of equal most likely classes, or of equal boxes, on the images; `before` and `after` are
    what `measure` returns for the file in float and in INT8.
    """
    before = measure(made.open(float_file)) if measure else None
    size = sum(float_file.with_suffix(suffix).stat().st_size for suffix in (made.SUFFIX, *made.COMPANIONS))
    if made.quantise is None or made.QUANTISER is None:  # check_int8 has looked
        raise TypeError("a format without a quantiser")
    kept = made.quantise(float_file, [image[None].numpy() for image in images])
    run = made.open(float_file)
    checks = [compare("images", subject, run, (part,), limits, TOLERANCE) for part in images.split(1)]
    if failed := next((check.failed for check in checks if check.failed), None):
        raise UsageError(expected="a quantised file that runs", received=failed, do="export in float")
    same, count = agreements(checks)
    return {
        "quantiser": f"{made.QUANTISER} {importlib.metadata.version(made.QUANTISER)}",
        "images": len(images),
        "agreement": same / count if count else None,
        "difference": max(check.difference for check in checks),
        "in_float": kept,
        "bytes_before": size,
        **({"before": before, "after": measure(run)} if measure else {}),
    }


class FileModel(nn.Module):
    """An exported file in the place of a model, so that a task measures it as it measures the model."""

    def __init__(self, run: Runner, model: Any):
        super().__init__()
        self.run = run
        self.heads, self.classes = getattr(model, "heads", ()), getattr(model, "classes", None)
        self.place = nn.Parameter(torch.zeros(0), requires_grad=False)  # a task asks a model for its device

    def forward(self, images: Tensor) -> Any:
        """Run the file on images (N, C, H, W), one by one, since its batch may be fixed."""
        rows = [self.run([np.ascontiguousarray(image[None].numpy())]) for image in images]
        outputs = [torch.from_numpy(np.concatenate(parts)) for parts in zip(*rows, strict=True)]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def run_data(run: LoadedRun) -> Any:
    """Open the data of a run. Raises DataError where they are gone."""
    trained = run.run
    if trained.options.data is not None and not trained.options.planted and not trained.options.data.exists():
        raise DataError(
            expected=f"the data of the run at {trained.options.data}", received="nothing there", do="put them back"
        )
    return trained.open_data()


def calibration_of(data: Any) -> Tensor:
    """Return validation images of a run's data, which are not augmented and not measured on."""
    return torch.stack([data.val[index][0] for index in range(min(CALIBRATION, len(data.val)))])


def measurer(run: LoadedRun, data: Any) -> Callable[[Runner], float]:
    """Return a function that measures a file on the test images: accuracy, or AP50."""
    what = run.run.options.what

    def measure(file: Runner) -> float:
        return float(what.evaluate(FileModel(file, run.model), data.test, 16, 0)["score"])

    return measure


def sentence(record: Mapping[str, Any], measure: str) -> str:
    """Return what INT8 changed, in one sentence."""
    int8 = record["int8"]
    text = f"INT8 from {int8['images']} images by {int8['quantiser']}"
    text += f", {len(int8['in_float'])} operators of attention in float"
    if int8["agreement"] is not None:
        text += f"; {int8['agreement']:.1%} of results are the same"
    if "before" in int8:
        text += f"; {measure} {int8['before']:.2%} before, {int8['after']:.2%} after"
    return text
