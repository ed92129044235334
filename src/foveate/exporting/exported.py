"""`foveate.export`: write a file, run it again, compare, and keep the comparison beside it."""

import copy
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from foveate import __version__, files
from foveate.checks import check_choice, check_flag
from foveate.detection import CONF, IOU, MAX_DET
from foveate.detection.nms import check_thresholds
from foveate.errors import UsageError, VerificationError, counted, naming_extras
from foveate.experiment.model import example_of
from foveate.experiment.run_folder import LoadedRun
from foveate.exporting import folding
from foveate.exporting.detector import with_boxes
from foveate.exporting.formats import Format, Runner, format_of
from foveate.exporting.keras_models import is_keras, subject_of_keras, written_elsewhere
from foveate.exporting.program import trace
from foveate.exporting.quantise import check_int8, quantised, sentence
from foveate.exporting.subject import BOXES, Boxes, Subject, Thresholds, subject_of
from foveate.exporting.targets import TARGETS, Tailored, check_target, rules_of, tailor
from foveate.exporting.targets import sentence as lint
from foveate.exporting.verify import TOLERANCE, Check, agreements, verify
from foveate.files import read_json
from foveate.surgery.torch.example import Example
from foveate.training.tasks import TASKS, task

UNVERIFIED, RECORD = ".unverified", ".json"


@dataclass(frozen=True)
class Exported:
    """An exported file and what is known of it, which is also in the JSON file beside it."""

    path: Path
    record: Mapping[str, Any]

    @property
    def difference(self) -> float:
        """The greatest difference of all comparisons, relative to the greatest magnitude of the output."""
        return max(check["difference"] for check in self.record["checks"])

    def open(self, threads: int | None = None) -> Runner:
        """Return a function that runs the file on arrays, on the CPU."""
        return format_of(self.path)[1].open(self.path, threads)

    def lines(self) -> list[str]:
        """Return what is known of the file, a sentence each."""
        sides = "open" if self.record["dynamic"] else "fixed"
        size = f"Batch and sides are {sides}; {self.record['bytes'] / 1e6:.1f} MB"
        measured = task(self.record["task"]).MEASURE if self.record.get("task") in TASKS else "score"
        int8 = [sentence(self.record, measured)] if "int8" in self.record else []
        folded = [folding.sentence(self.record)] if "folded" in self.record else []
        return [summary(self.record), size, *folded, *int8, *_of_target(self.record)]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def export(
    model: Any,
    path: str | os.PathLike[str],
    example: Example = None,
    *,
    target: str | None = None,
    dynamic: bool = True,
    boxes: Boxes = "outputs",
    conf: float = CONF,
    iou: float = IOU,
    max_det: int = MAX_DET,
    images: Tensor | None = None,
    fold: bool = False,
    int8: bool = False,
    measure: Callable[[Runner], float] | None = None,
    about: Mapping[str, Any] | None = None,
) -> Exported:
    """Write a model, attached attention included, to a file for other runtimes; run the file and compare.

    The suffix of `path` chooses the format: `foveate.exporting.formats` has a module for each. The file runs again at
    the size of the example and at three others; the comparison is kept in `<path>.json`. The model does not change.

    Args:
        model: a PyTorch model that takes and returns tensors, in eval mode or not, a `LoadedRun`, or a functional Keras
            model on any backend; the file computes as in eval mode.
        path: of the file.
        example: what the model is called with, as in `foveate.attach`; a run needs none. Of a Keras model, a shape.
        target: what will run the file, of `foveate.exporting.targets.TARGETS`: the graph then has the operators that it
            runs well, and the record names those that it lacks.
        dynamic: leave batch, height and width open, if the format has that; False fixes those of the example.
        boxes: of a detector, "outputs" returns those of the network, "decoded" boxes (N, M, 4) and scores (N, M, K),
            "nms" boxes (D, 4), scores, labels, and the number of the image of each (D,).
        conf: of NMS in the file: what a score must exceed.
        iou: of NMS in the file: of two boxes of a class with a higher IoU only one is kept.
        max_det: of NMS in the file: the highest number of boxes in an image.
        images: what to compare on besides random values, (N, C, H, W), prepared as for the model.
        fold: make attention that is constant over `images` part of the layers before it; a file is compared with that.
        int8: quantise the file after its float form was compared, calibrated on `images`; attention stays in float.
        measure: returns a score of a file, which is kept before and after INT8.
        about: what else to keep in the record, such as the classes.

    Raises:
        UsageError: an unknown format, or a model that cannot be exported.
        MissingExtra: the packages of the format are not installed.
        VerificationError: the file computes something else; it is then named `<path>.unverified`.
    """
    if isinstance(model, LoadedRun):
        about = {**described(model), **(about or {})}
        example = example_of(model.run.data) if example is None else example
        model = model.model
    path = Path(path)
    name, made = format_of(path)
    check_target(target, name)
    check_flag("dynamic", dynamic)
    check_choice("boxes", boxes, BOXES)
    check_thresholds(conf, iou, max_det)
    if boxes == "nms" and not made.NMS:
        raise UsageError(
            expected=f"a format with non-maximum suppression; {name} has none",
            received="boxes='nms'",
            do="use boxes='decoded' and foveate.detection.nms.select on its outputs",
        )
    limits = Thresholds(conf, iou, max_det)
    keras = is_keras(model)
    found = subject_of_keras(model, example) if keras else subject_of(_on_cpu(model), example)
    folded = {}
    if fold:
        seen = folding.check_fold(keras, found, images)
        done = folding.fold(_on_cpu(model), seen)
        plain, found, model = found, subject_of(done.model, example), done.model
        folded = {"folded": {**done.to_dict(), **folding.changed(plain, found, seen, limits)}}
    subject = with_boxes(found, boxes, limits)
    calibration = check_int8(name, made, subject, images) if int8 else None
    is_open = dynamic and made.DYNAMIC and not (target and TARGETS[target].fixed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming_extras(), tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as folder:
        written = Path(folder) / path.name
        tailored, versions = _write(made, name, model, subject, written, target, is_open, limits, _notes(about or {}))
        checks = verify(subject, made.open(written), dynamic=is_open, images=images, thresholds=limits)
        verified = all(check.passes(TOLERANCE) for check in checks)
        quantisation = {}
        if calibration is not None and verified:
            direct = measure if subject.boxes == "outputs" else None
            quantisation = quantised(made, written, subject, calibration, limits, direct)
            if measure and not direct:  # a task measures the outputs of the network
                others = {"dynamic": dynamic, "images": images, "int8": True, "measure": measure, "target": target}
                beside = export(model, Path(folder) / "outputs" / path.name, example, **others).record["int8"]
                quantisation |= {key: beside[key] for key in ("before", "after")}
        record = {
            "schema": 1,
            "format": name,
            "verified": verified,
            "tolerance": TOLERANCE,
            "checks": [check.to_dict() for check in checks],
            "sha256": hashlib.sha256(written.read_bytes()).hexdigest(),
            "bytes": sum(file.stat().st_size for file in Path(folder).iterdir() if file.is_file()),
            "foveate": __version__,
            "versions": {"torch": importlib.metadata.version("torch"), **versions},
            "inputs": {one: list(x.shape) for one, x in zip(subject.input_names, subject.inputs, strict=True)},
            "dtypes": [str(x.dtype).removeprefix("torch.") for x in subject.inputs],
            "channels_last": subject.channels_last,
            "outputs": list(subject.output_names),
            "dynamic": is_open,
            "operators": (operators := dict(sorted(made.operators(written).items()))),
            **tailored.to_dict(operators),
            **folded,
            **({"int8": quantisation} if quantisation else {}),
            **({"boxes": boxes, "conf": conf, "iou": iou, "max_det": max_det} if subject.heads else {}),
            **(about or {}),
        }
        return _kept(made, written, path, record)


def _write(
    made: Format,
    name: str,
    model: Any,
    subject: Subject,
    path: Path,
    target: str | None,
    dynamic: bool,
    limits: Thresholds,
    notes: dict[str, str],
) -> tuple[Tailored, dict[str, str]]:
    """Write a model; return what was done for the target, and the versions of the packages that did it."""
    if is_keras(model) and made.write_keras is not None:
        return Tailored(target, ()), made.write_keras(model, subject, path)
    if is_keras(model) and not isinstance(model, nn.Module):  # on TensorFlow or JAX
        given = {"format": name, "target": target, "dynamic": dynamic, "notes": notes}
        counts = written_elsewhere(model, subject, path, limits, **given)
        tailored = Tailored(target, tuple(zip(rules_of(target, name), counts, strict=True)))
    else:
        program, tailored = tailor(trace(subject, dynamic=dynamic), target, name)
        made.write(program, subject, path, notes)
    return tailored, {package: importlib.metadata.version(package) for package in made.PACKAGES}


def described(run: LoadedRun) -> dict[str, Any]:
    """Return what whoever runs the file must know: the classes, and how images are prepared."""
    data = run.run.data
    return {
        "task": run.run.options.task,
        "model": run.run.options.model,
        "classes": run.classes,
        "size": data["size"],
        "kind": data["kind"],
        "normalisation": data.get("normalisation"),
        "run": str(run.run.folder.resolve()),
    }


def read_record(path: Path) -> dict[str, Any] | None:
    """Return what is kept beside an exported file; None if there is nothing. Raises DataError for damage."""
    beside = with_ending(path, RECORD)
    return read_json(beside, "export the model again") if beside.is_file() else None


def summary(record: Mapping[str, Any]) -> str:
    """Return the comparison in one sentence."""
    checks = [Check.from_dict(check) for check in record["checks"]]
    greatest, sizes = max(check.difference for check in checks), len({check.shapes for check in checks})
    same, count = agreements(checks)
    what = "boxes" if "boxes" in record else "most likely classes"
    agreement = f"; {same} of {count} {what} are the same" if count else ""
    return f"Greatest difference {greatest:.1e} at {sizes} input sizes{agreement}"


def _of_target(record: Mapping[str, Any]) -> list[str]:
    """Return what was done for the target of a file, a sentence each."""
    lines = [f"Rule {one['rule']!r} applied {counted(one['count'], 'time')}" for one in record.get("rules", ())]
    if (target := record.get("target")) is None:
        return lines
    if not record["run_on_target"]:
        lines.append(
            f"Not run on {target}: its compiler is not at hand. The outputs were compared on {record['format']}"
        )
    return [*lines, lint(target, record["lacks"])] if "lacks" in record else lines


def _on_cpu(model: nn.Module) -> nn.Module:
    """Return the model, or a copy on the CPU of one that is elsewhere."""
    devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())}
    return model if devices <= {"cpu"} else copy.deepcopy(model).cpu()


def _notes(about: Mapping[str, Any]) -> dict[str, str]:
    """Return what the file itself says, as texts."""
    return {"foveate": __version__, **{name: json.dumps(value) for name, value in about.items()}}


def _kept(made: Format, written: Path, path: Path, record: dict[str, Any]) -> Exported:
    """Move a file to its place with its record, or raise VerificationError and leave it as unverified."""
    suffixes = (made.SUFFIX, *made.COMPANIONS)
    places = {suffix: path.with_suffix(suffix) for suffix in suffixes}
    for stale in (with_ending(places[suffix], UNVERIFIED) for suffix in suffixes):
        stale.unlink(missing_ok=True)
    ending = "" if record["verified"] else UNVERIFIED
    for suffix in suffixes:
        written.with_suffix(suffix).replace(with_ending(places[suffix], ending))
    files.write_json(with_ending(path, RECORD), record)
    if record["verified"]:
        return Exported(path, record)
    failed = next(check for check in record["checks"] if not Check.from_dict(check).passes(TOLERANCE))
    what = f"input {' and '.join('x'.join(map(str, shape)) for shape in failed['shapes'])}"
    received = failed["failed"] or f"a difference of {failed['difference']:.1e}"
    if not failed["failed"] and failed["agreement"] not in (None, 1.0):
        received += f", and {failed['agreement']:.1%} of {failed['count']} results the same"
    raise VerificationError(
        expected=f"a file that computes what the model does, within {TOLERANCE:g}",
        received=f"{received} at {what}; the file is {with_ending(path, UNVERIFIED)}",
        do="pass dynamic=False if only the size of the example matters; otherwise report it with the model"
        if record["dynamic"]
        else "do not use this file; report it with the model",
    )


def with_ending(path: Path, ending: str) -> Path:
    """Return the path of what belongs to an exported file, by its ending."""
    return path.with_name(path.name + ending)
