"""Does the attention look at the object? Each gate's mass and its peak, against the object's box."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.explain.record import record

Array = NDArray[np.float64]
KINDS = ("spatial", "row", "column")


def gaze(model: nn.Module, images: Any, boxes: ArrayLike, *, batch: int = 64) -> dict[str, dict[str, float]]:
    """Measure where the gates of `model` look, as {"spatial" | "row" | "column": {"mass", "area", "ratio", "pointing"}}.

    `images` is a tensor (N, C, H, W), or a sequence (a Dataset) of (C, H, W) images or (image, label) pairs; `boxes` (N, 4) are
    the objects' x0, y0, x1, y1 in pixels, half open. All numbers are means over images and sites; an image
    whose box has no area counts nowhere.

    - mass: the share of the gate inside the box; of the effective gate, which multiplies the features; negative values count as 0.
    - area: the box's share of the picture (of its height or width for a row or column gate): the mass of a constant gate.
    - ratio: mass / area, so 1 means that the gate does not care.
    - pointing: how often the gate's highest cell lies in the box. A partly covered cell counts by its covered share and ties by their mean,
      so a constant gate points at the box as often as chance does: `area`.

    Row and column gates are averaged over channels first. The model runs in eval mode and comes back in the mode it was in.
    Raises UsageError when images and boxes do not belong together.
    """
    boxes = _checked(boxes, images)
    sums = {kind: np.zeros(4) for kind in KINDS}
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            for at, some in _batches(images, batch, model):
                with record(model, KINDS) as maps:
                    model(some)
                for recorded in maps.gates:
                    gate = recorded.gate.double().numpy().mean(1)
                    sums[recorded.kind] += _measure(recorded.kind, gate, boxes[at : at + len(gate)], some.shape[-2:])
    finally:
        for module in training:
            module.training = True
    return {kind: _means(total) for kind, total in sums.items() if total[3]}


def coverage(start: ArrayLike, stop: ArrayLike, pixels: int, cells: int) -> Array:
    """Return how much of each of `cells` equal cells along an axis of `pixels` lies in [start, stop), as shares (N, cells)."""
    edges = np.arange(cells + 1) * pixels / cells
    low, high = np.asarray(start, float)[:, None], np.asarray(stop, float)[:, None]
    return (np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1])).clip(0) * cells / pixels


def _measure(kind: str, gate: Array, boxes: Array, size: Sequence[int]) -> Array:
    """Return the sums over images of mass, area, pointing and 1, for gates (N, h, w), (N, h, 1) or (N, 1, w) by kind."""
    height, width = size
    whole = np.ones((len(gate), 1))
    down = whole if kind == "column" else coverage(boxes[:, 1], boxes[:, 3], height, gate.shape[1])
    across = whole if kind == "row" else coverage(boxes[:, 0], boxes[:, 2], width, gate.shape[2])
    covered = (down[:, :, None] * across[:, None, :]).reshape(len(gate), -1)
    gate = np.nan_to_num(gate, nan=0, posinf=0, neginf=0).clip(0).reshape(len(gate), -1)
    gate, covered = gate[covered.any(1)], covered[covered.any(1)]
    area, total = covered.mean(1), gate.sum(1)
    # sum(gate * covered) / sum(gate), written as deviations: exactly `area` for a constant gate, and for one that is 0 everywhere.
    excess = ((gate - gate[:, :1]) * (covered - area[:, None])).sum(1)
    mass = area + np.divide(excess, total, out=np.zeros_like(total), where=total > 0)
    peaks = gate == gate.max(1, keepdims=True)
    pointing = (peaks * covered).sum(1) / peaks.sum(1)
    return np.array([mass.sum(), area.sum(), pointing.sum(), len(gate)])


def _means(total: Array) -> dict[str, float]:
    mass, area, pointing = (total[:3] / total[3]).tolist()
    return {"mass": mass, "area": area, "ratio": mass / area, "pointing": pointing}


def _checked(boxes: ArrayLike, images: Any) -> Array:
    found = np.asarray(boxes, float)
    if found.shape != (len(images), 4) or not np.isfinite(found).all():
        raise UsageError(
            expected=f"one finite box x0, y0, x1, y1 for each of the {len(images)} images",
            received=f"boxes of shape {found.shape}" if found.shape != (len(images), 4) else "boxes with NaN or infinite sides",
            do="pass boxes of shape (N, 4) in pixels of the images",
        )
    return found


def _batches(images: Any, batch: int, model: nn.Module) -> Iterator[tuple[int, Tensor]]:
    parameter = next(model.parameters(), None)
    device = "cpu" if parameter is None else parameter.device
    for at in range(0, len(images), batch):
        if isinstance(images, Tensor):
            some = images[at : at + batch]
        else:
            items = (images[i] for i in range(at, min(at + batch, len(images))))
            some = torch.stack([torch.as_tensor(item[0] if isinstance(item, tuple | list) else item) for item in items])
        yield at, some.to(device)
