"""Run an exported file again and compare it with the model, at several sizes and on the user's images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foveate.detection.boxes import iou
from foveate.detection.detections import Detections
from foveate.detection.heads import decode_all
from foveate.detection.nms import select
from foveate.exporting.formats import Array, Runner
from foveate.exporting.subject import Subject, Thresholds

TOLERANCE = 1e-4
SAME_BOX, SAME_SCORE = 0.99, 1e-3


@dataclass(frozen=True)
class Check:
    """The comparison at one size.

    `difference` is the greatest one over the greatest magnitude of the output, or over 1 where that is less; infinite
    for NaN or another shape. `agreement` is the share of `count` images whose most likely class is the same, or of
    boxes that are the same; None for other outputs. `failed` is why the file did not run.
    """

    what: str
    shapes: tuple[tuple[int, ...], ...]
    difference: float
    agreement: float | None = None
    count: int = 0
    failed: str = ""

    def passes(self, tolerance: float) -> bool:
        """Return whether the outputs are equal within the tolerance, and all classes or boxes are the same."""
        return not self.failed and self.difference <= tolerance and self.agreement in (None, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return values that JSON can hold."""
        return {**asdict(self), "shapes": [list(shape) for shape in self.shapes]}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> "Check":
        """Return the check that `to_dict` made."""
        return cls(**{**record, "shapes": tuple(map(tuple, record["shapes"]))})


def agreements(checks: Iterable[Check]) -> tuple[int, int]:
    """Return how many classes or boxes are the same in all checks, and how many there are."""
    found = [(check.agreement, check.count) for check in checks if check.agreement is not None]
    return sum(round(share * count) for share, count in found), sum(count for _, count in found)


def verify(
    subject: Subject,
    run: Runner,
    *,
    dynamic: bool,
    images: Tensor | None = None,
    thresholds: Thresholds | None = None,
    tolerance: float = TOLERANCE,
) -> list[Check]:
    """Compare at the size of the example and, if `dynamic`, at three other sizes; then on `images`, if given.

    Other sizes are odd and not square where the model takes such. `images` (N, C, H, W) go through in batches; a file
    of a fixed batch leaves out a last part that does not fill it.
    """
    limits = thresholds or Thresholds()
    given = [("the example", subject.inputs)]
    given += [("another size", inputs) for inputs in (other_sizes(subject) if dynamic else ())]
    if images is not None:
        batch = min(16, len(images)) if dynamic else len(subject.inputs[0])
        given += [("images", (part,)) for part in images.split(batch) if dynamic or len(part) == batch]
    return [compare(what, subject, run, inputs, limits, tolerance) for what, inputs in given]


def other_sizes(subject: Subject) -> Iterator[tuple[Tensor, ...]]:
    """Yield inputs of three other sizes that the model takes: odd and not square, else multiples of its step or of 32.

    Yields fewer where the model itself takes no other size.
    """
    generator = torch.Generator().manual_seed(0)
    for batch, tall, wide in ((1, 1.0, 1.4), (3, 1.3, 0.8), (2, 0.8, 1.7)):
        for step in (subject.step,) if subject.step > 1 else (1, 32):
            inputs = tuple(_resized(subject, x, batch, (tall, wide), step, generator) for x in subject.inputs)
            pairs = zip(inputs, subject.inputs, strict=True)
            if any(x.shape[1:] != y.shape[1:] for x, y in pairs) and _runs(subject, inputs):
                yield inputs
                break


def compare(
    what: str, subject: Subject, run: Runner, inputs: tuple[Tensor, ...], limits: Thresholds, tolerance: float
) -> Check:
    """Compare the file with the model on these inputs."""
    shapes = tuple(tuple(x.shape) for x in inputs)
    wanted = [output.numpy() for output in subject.reference(*inputs)]
    try:
        found = run([x.numpy() for x in inputs])
    except Exception as error:  # a runtime raises nearly anything
        told = " ".join(str(error).split())[:300]
        return Check(what, shapes, float("inf"), failed=f"{type(error).__name__}: {told}")
    if subject.heads:
        here = _detections(subject, wanted, "outputs", limits, shapes[0][0])
        there = _detections(subject, found, subject.boxes, limits, shapes[0][0])
        same = [_equal_boxes(a, b) for a, b in zip(here, there, strict=True)]
        equal, count = sum(one for one, _, _ in same), sum(most for _, most, _ in same)
        if subject.boxes == "nms":
            difference = max((far for *_, far in same), default=0.0)
        else:
            wanted = wanted if subject.boxes == "outputs" else [*_decoded(subject, wanted)]
            difference = _difference(wanted, found)
        return Check(what, shapes, difference, equal / count if count else None, count)
    difference = _difference(wanted, found)
    classes = len(wanted) == 1 and wanted[0].ndim == 2 and wanted[0].shape[1] > 1 and difference < float("inf")
    if not classes:
        return Check(what, shapes, difference)
    (logits,), (given,) = wanted, found
    chosen = np.take_along_axis(logits, given.argmax(1)[:, None], 1)[:, 0]
    slack = tolerance * max(1.0, float(np.abs(logits).max()))  # two classes may be that close
    same = chosen >= logits.max(1) - slack
    return Check(what, shapes, difference, float(same.mean()), len(same))


def _difference(wanted: Sequence[Array], found: Sequence[Array]) -> float:
    if [a.shape for a in wanted] != [b.shape for b in found]:
        return float("inf")
    far = [
        np.abs(a - b).max(initial=0) / max(1.0, np.abs(a).max(initial=0)) for a, b in zip(wanted, found, strict=True)
    ]
    greatest = float(np.max(far, initial=0))
    return float("inf") if np.isnan(greatest) else greatest


def _detections(
    subject: Subject, outputs: Sequence[Array], boxes: str, limits: Thresholds, count: int
) -> list[Detections]:
    """Return the detections of each image from what a detector's file returns."""
    if boxes == "nms":
        found, scores, labels, images = outputs
        return [Detections(found[images == k], scores[images == k], labels[images == k]) for k in range(count)]
    decoded = _decoded(subject, outputs) if boxes == "outputs" else outputs
    chosen = (limits.conf, limits.iou, limits.max_det)
    return [Detections(*select(box, score, *chosen)) for box, score in zip(*decoded, strict=True)]


def _decoded(subject: Subject, outputs: Sequence[Array]) -> tuple[Array, Array]:
    return decode_all(np, outputs, subject.heads, subject.channels_last)


def _equal_boxes(a: Detections, b: Detections) -> tuple[int, int, float]:
    """Return how many boxes are the same in both, how many there are, and the greatest difference between the same."""
    most = max(len(a.boxes), len(b.boxes))
    if not len(a.boxes) or not len(b.boxes):
        return 0, most, 0.0
    near = (iou(a.boxes, b.boxes) >= SAME_BOX) & (a.labels[:, None] == b.labels)
    near &= np.abs(a.scores[:, None] - b.scores) <= SAME_SCORE
    pairs = [(int(row), int(near[row].argmax())) for row in range(len(near)) if near[row].any()]
    scale = max(1.0, float(np.abs(a.boxes).max()))
    far = max((float(np.abs(a.boxes[k] - b.boxes[m]).max()) / scale for k, m in pairs), default=0.0)
    return len(pairs), most, far


def _resized(
    subject: Subject, x: Tensor, batch: int, shares: tuple[float, float], step: int, generator: torch.Generator
) -> Tensor:
    """Return random values of another batch and, where there are positions, other sides."""
    shape = [batch, *x.shape[1:]]
    for number, axis in enumerate(subject.positions(x)):
        shape[axis] = _side(shape[axis], shares[number % 2], step)
    return torch.rand(shape, generator=generator).to(x.dtype)


def _side(side: int, share: float, step: int) -> int:
    return max(1, round(side * share / step)) * step if step > 1 else round(side * share) // 2 * 2 + 1


def _runs(subject: Subject, inputs: tuple[Tensor, ...]) -> bool:
    try:
        subject.reference(*inputs)
    except Exception:  # a model may refuse a size in any way
        return False
    return True
