"""The pointing game: how much of each gate, and how often its peak, lies in the boxes of the objects."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.gates.record_torch import record
from foveate.torch_utils.modes import in_eval

Array = NDArray[np.float64]
KINDS = ("spatial", "row", "column")


def play_pointing_game(
    model: nn.Module,
    images: Any,
    boxes: ArrayLike | Sequence[ArrayLike],
    *,
    within: ArrayLike | None = None,
    batch: int = 64,
) -> dict[str, dict[str, float]]:
    """Compare gates with boxes: {"spatial" | "row" | "column": {"mass", "area", "ratio", "pointing"}}.

    `images` is a tensor (N, C, H, W), or a sequence (a Dataset) of (C, H, W) images or of tuples that begin with one;
    `boxes` are the objects' x0, y0, x1, y1 in pixels, half-open: (N, 4), or for each image all of its boxes (M, 4).
    `within` (N, 4) is the part of each image that counts if the rest is a border; None counts the whole image. All
    numbers are means over images and sites; an image whose boxes have no area is left out.

    - mass: the share of the gate inside the boxes. The gate is the effective one, which multiplies the features;
      negative values count as 0.
    - area: the boxes' share of the image (of its height or width for a row or column gate). This is the mass of a
      constant gate.
    - ratio: mass / area, so 1 means that the gate does not prefer the objects.
    - pointing: how often the gate's highest cell lies in a box. A partly covered cell counts by its covered share, and
      equally high cells by their mean, so a constant gate points into a box as often as chance: `area`.

    Row and column gates are averaged over channels first. The model runs in eval mode; its modes are restored. Raises
    UsageError if images and boxes do not belong together.
    """
    objects = _checked("boxes", boxes, images)
    parts = [] if within is None else _checked("within", within, images)
    sums = {kind: np.zeros(4) for kind in KINDS}
    with in_eval(model), torch.no_grad():
        for at, some in _batches(images, batch, model):
            size, here = some.shape[-2:], slice(at, at + len(some))
            counted = parts[here] or [np.array([[0.0, 0.0, size[1], size[0]]])] * len(some)
            cut = [
                every.clip(part[0, [0, 1, 0, 1]], part[0, [2, 3, 2, 3]])
                for every, part in zip(objects[here], counted, strict=True)
            ]
            with record(model, KINDS) as maps:
                model(some)
            for recorded in maps.gates:
                gate = recorded.gate.double().numpy().mean(1)
                sums[recorded.kind] += _measure(recorded.kind, gate, cut, counted, size)
    return {kind: _means(total) for kind, total in sums.items() if total[3]}


def cover(boxes: Array, size: Sequence[int], cells: Sequence[int]) -> Array:
    """Return the share of each cell (h, w) of an image of `size` (H, W) pixels that boxes (M, 4) cover."""
    edges = [np.arange(count + 1) * side / count for side, count in zip(size, cells, strict=True)]
    sides = [boxes[:, first::2].clip(0, side) for first, side in zip((1, 0), size, strict=True)]
    cuts = [np.unique(np.concatenate((edge, pair.ravel()))) for edge, pair in zip(edges, sides, strict=True)]
    covered = np.zeros([len(cut) - 1 for cut in cuts])
    spans = [np.searchsorted(cut, pair) for cut, pair in zip(cuts, sides, strict=True)]
    for (top, bottom), (left, right) in zip(*spans, strict=True):
        covered[top:bottom, left:right] = 1
    covered *= np.outer(np.diff(cuts[0]), np.diff(cuts[1]))
    for axis in (0, 1):
        covered = np.add.reduceat(covered, np.searchsorted(cuts[axis], edges[axis][:-1]), axis)
    return covered * (cells[0] * cells[1]) / (size[0] * size[1])


def shares_in_boxes(kind: str, gate: NDArray, boxes: Sequence[Array], within: Array, size: Sequence[int]) -> Array:
    """Return mass and area of each image, (n, 2), for gates (n, h, w), (n, h, 1) or (n, 1, w) by kind.

    `within` (n, 4) are the parts of the images that count. NaN for an image whose boxes have no area there.
    """
    found = np.full((len(gate), 2), np.nan)
    for row, one, some, part in zip(found, np.asarray(gate, float), boxes, within, strict=True):
        inside = some[np.isfinite(some).all(1)].clip(part[[0, 1, 0, 1]], part[[2, 3, 2, 3]])
        mass, area, _, count = _measure(kind, one[None], [inside], [part[None]], size)
        if count:
            row[:] = mass, area
    return found


def _measure(kind: str, gate: Array, boxes: Sequence[Array], within: Sequence[Array], size: Sequence[int]) -> Array:
    """Return the sums over images of mass, area, pointing and 1, for gates (N, h, w), (N, h, 1) or (N, 1, w) by kind.

    The boxes lie inside the parts `within`.
    """
    inside, covered = (
        np.stack([cover(_along(kind, each, size), size, gate.shape[1:]).ravel() for each in every])
        for every in (within, boxes)
    )
    gate = np.nan_to_num(gate, nan=0, posinf=0, neginf=0).clip(0).reshape(len(gate), -1)
    some = covered.any(1)
    gate, covered, inside = gate[some], covered[some], inside[some]
    area, total = covered.sum(1) / inside.sum(1), (gate * inside).sum(1)
    # sum(gate * covered) / total, written with deviations, so that a constant gate gives exactly `area`, also one that
    # is 0 everywhere
    excess = ((gate - gate[:, :1]) * (covered - area[:, None] * inside)).sum(1)
    mass = area + np.divide(excess, total, out=np.zeros_like(total), where=total > 0)
    peaks = gate == np.where(inside > 0, gate, -1).max(1, keepdims=True)
    pointing = (peaks * covered).sum(1) / (peaks * inside).sum(1)
    return np.array([mass.sum(), area.sum(), pointing.sum(), len(gate)])


def _along(kind: str, boxes: Array, size: Sequence[int]) -> Array:
    """Return the boxes as this kind of gate sees them: over the full width for a row gate, full height for a column."""
    boxes = boxes[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    if kind == "row":
        boxes[:, 0], boxes[:, 2] = 0, size[1]
    elif kind == "column":
        boxes[:, 1], boxes[:, 3] = 0, size[0]
    return boxes


def _means(total: Array) -> dict[str, float]:
    mass, area, pointing = (total[:3] / total[3]).tolist()
    return {"mass": mass, "area": area, "ratio": mass / area, "pointing": pointing}


def _checked(name: str, boxes: ArrayLike | Sequence[ArrayLike], images: Any) -> list[Array]:
    """Return the boxes of each image as (M, 4)."""
    found = [np.asarray(some, float) for some in boxes]  # pyright: ignore[reportGeneralTypeIssues]  # an array gives its rows
    if len(found) != len(images) or any(some.size % 4 or not np.isfinite(some).all() for some in found):
        raise UsageError(
            expected=f"{name} as finite x0, y0, x1, y1 for each of the {len(images)} images",
            received=f"{name} of {len(found)} images, shapes {sorted({some.shape for some in found})[:3]}, "
            "or numbers that are not finite",
            do="pass (N, 4), or for each image an array (M, 4), in pixels of the images",
        )
    return [some.reshape(-1, 4) for some in found]


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
