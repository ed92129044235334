"""Maps of gates, small enough to keep: a dict of arrays, which `maps.npz` holds and pictures are made from."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from foveate.errors import UsageError
from foveate.files import write_whole
from foveate.gates.kinds import CHANNEL_KINDS
from foveate.gates.layers import PRODUCT
from foveate.gates.measures import Spread, measure
from foveate.gates.record_torch import watch
from foveate.gates.recording import RecordedGate
from foveate.torch_utils.modes import in_eval

Maps: TypeAlias = dict[str, NDArray[Any]]
MOST_GROUPS = 8  # of a gate, whose maps are kept besides their mean
EXTREMES = 3  # channels that pass most, and as many that pass least
CELLS = 14  # on a side of the maps of those channels


def save_maps(arrays: Maps, path: Path) -> None:
    """Write what `capture` returns to `path`, as a whole file or not at all."""
    archive = io.BytesIO()
    np.savez_compressed(archive, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, archive.getvalue())


def capture(
    model: nn.Module,
    images: NDArray[np.uint8],
    tensors: Tensor,
    numbers: Mapping[str, ArrayLike] | None = None,
    boxes: ArrayLike | Sequence[ArrayLike] | None = None,
    *,
    within: ArrayLike | None = None,
    batch: int = 16,
    cam: bool | Mapping[str, int] = False,
) -> Maps:
    """Run `model` in eval mode on n images, batch by batch, and return the maps of its gates.

    - `images` (n, H, W, 3) as shown, and each array (n,) in `numbers` under its name: `labels` and `predictions`, or
      for detection the counts of `objects`, of `found` objects and of `false` detections.
    - `boxes` (n, M, 4), unless None, in pixels of the images, filled up with NaN. `within` (n, 4) is the part of each
      image that counts for them if the rest is a border.
    - `gate/<site>/<kind>` (n, h, w): spatial, full and pairwise maps, and row and column gates repeated along the other
      side, all averaged over channels, and the product of these two; `gate/<site>/spatial 1`, ... are the groups of a
      gate of several.
    - `channel/<site>/<kind>` (n, C): channel gates, and how much attention between channels reads each;
      `extremes/<site>/<kind>` (n, 2 * EXTREMES): the channels that pass most, then those that pass least, and
      `features/<site>/<kind>` (n, 2 * EXTREMES, h, w) what enters the gate there.
    - Further gates of a kind at a site, such as those of the branches of SK, have the kinds `channel (2)`, ...
    - `cam/<what>` (n, h, w), `cam_numbers/<what>` (n, 4) and `cam_layer`: with `cam`, the Grad-CAM of a classifier or a
      detector, for what it predicts, or for each class by name and number.
    - `predictions` (n,): what a classifier predicts, unless given.
    - `numbers/<site>/<kind>` (n, 4): the `MEASURES` of the gate; `dead/<site>/<kind>`: why it is dead, as text.

    Raises UsageError if the arguments do not belong together.
    """
    device = next(model.parameters(), tensors).device
    found = FoundGates(images, numbers or {}, boxes, within, len(tensors))
    with in_eval(model), torch.no_grad(), watch(model, found.add):
        for at in range(0, len(tensors), batch):
            found.begin(at)
            output = model(tensors[at : at + batch].to(device))
            if isinstance(output, Tensor) and output.dim() == 2:
                found.add_classes(output.argmax(1).cpu().numpy())
    if cam is False:
        return found.arrays()
    from foveate.gates.grad_cam import grad_cam

    explained = grad_cam(model, tensors, None if cam is True else cam, batch=batch)
    return found.arrays() | ({} if explained is None else found.cam_arrays(explained.maps, explained.layer))


class FoundGates:
    """The gates of all batches so far, over `count` images; the arguments are those of `capture`."""

    def __init__(
        self,
        images: NDArray[np.uint8],
        numbers: Mapping[str, ArrayLike],
        boxes: ArrayLike | Sequence[ArrayLike] | None,
        within: ArrayLike | None,
        count: int,
    ):
        self.given: Maps = {
            "images": np.asarray(images),
            **{name: np.asarray(values) for name, values in numbers.items()},
        }
        if boxes is not None:
            self.given["boxes"] = _padded(boxes)
        _check(self.given, count)
        self.boxes, self.size, self.at = self.given.get("boxes"), self.given["images"].shape[1:3], 0
        self.within = None if within is None else np.asarray(within, float)
        self.classes: list[NDArray] = []
        self.parts: dict[str, dict[int, NDArray]] = {}  # by name, then by the first image of the batch
        self.spreads: dict[tuple[str, str], Spread] = {}
        self.modules: dict[tuple[str, str], list[str]] = {}  # of each kind at a site

    def begin(self, at: int) -> None:
        """Begin the batch whose first image has this number."""
        self.at = at

    def add_classes(self, predicted: NDArray) -> None:
        """Add the classes (n,) that a classifier predicts for a batch."""
        self.classes.append(predicted)

    def add(self, recorded: RecordedGate[Any], features: Tensor | None = None) -> None:
        """Add the gate of a batch, and the features that it scales; if it runs twice in a batch, the last counts."""
        if len(recorded.size) != 2:
            return
        for kind, gate in self._heads(recorded):
            if recorded.kind in CHANNEL_KINDS:
                self._keep(f"channel/{recorded.site}/{kind}", gate[:, :, 0, 0])
                if features is not None:
                    self._keep_features(f"{recorded.site}/{kind}", gate[:, :, 0, 0], features)
            else:
                shape = len(gate), *recorded.size
                self._keep(f"gate/{recorded.site}/{kind}", np.ascontiguousarray(np.broadcast_to(gate.mean(1), shape)))
            measured = self._measured(recorded.kind, gate, recorded.limits)
            self._keep(f"numbers/{recorded.site}/{kind}", measured)
            self.spreads.setdefault((recorded.site, kind), Spread(recorded.kind)).add(gate)

    def arrays(self) -> Maps:
        """Return the arrays of all batches."""
        joined = {name: np.concatenate(list(parts.values())) for name, parts in self.parts.items()}
        for site in dict.fromkeys(site for site, _ in self.spreads):
            row, column = (joined.get(f"gate/{site}/{kind}") for kind in ("row", "column"))
            if row is not None and column is not None:  # together they mark a position
                self.begin(0)
                both = joined[f"gate/{site}/{PRODUCT}"] = row * column
                joined[f"numbers/{site}/{PRODUCT}"] = self._measured("spatial", both[:, None]).astype(np.float32)
        dead = {f"dead/{site}/{kind}": np.array(spread.dead) for (site, kind), spread in self.spreads.items()}
        classes = {"predictions": np.concatenate(self.classes)} if self.classes else {}
        return classes | self.given | joined | dead

    def cam_arrays(self, cams: Mapping[str, NDArray[np.float32]], layer: str) -> Maps:
        """Return the arrays of Grad-CAM (n, h, w), by what it explains, at a layer."""
        self.begin(0)
        numbers = {name: self._measured("spatial", cam[:, None]).astype(np.float32) for name, cam in cams.items()}
        arrays = {f"cam/{name}": cam for name, cam in cams.items()}
        return (
            arrays | {f"cam_numbers/{name}": found for name, found in numbers.items()} | {"cam_layer": np.array(layer)}
        )

    def _measured(self, kind: str, gate: NDArray, limits: tuple[float, float] | None = None) -> NDArray:
        here = slice(self.at, self.at + len(gate))
        boxes, within = (None if every is None else every[here] for every in (self.boxes, self.within))
        return measure(kind, gate, limits, boxes, self.size, within)

    def _keep(self, name: str, part: NDArray) -> None:
        self.parts.setdefault(name, {})[self.at] = part.astype(np.float32)

    def _heads(self, recorded: RecordedGate[Any]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield the names and values of a gate, and of its groups where it has several."""
        gate = recorded.gate.float().numpy() if isinstance(recorded.gate, Tensor) else recorded.gate
        modules = self.modules.setdefault((recorded.site, recorded.kind), [])
        if recorded.name not in modules:
            modules.append(recorded.name)
        number = modules.index(recorded.name) + 1
        name = recorded.kind if number == 1 else f"{recorded.kind} ({number})"
        yield name, gate
        if recorded.kind == "spatial" and gate.shape[1] > 1:
            for group in range(min(gate.shape[1], MOST_GROUPS)):
                yield f"{name} {group + 1}", gate[:, group : group + 1]

    def _keep_features(self, where: str, gate: NDArray, features: Tensor) -> None:
        if features.dim() != 4 or features.shape[:2] != gate.shape:  # groups of channels as samples
            return
        if features.shape[2:].numel() == 1:  # pooled, so no map
            return
        order = np.argsort(-gate, axis=1, kind="stable")
        chosen = np.concatenate([order[:, :EXTREMES], order[:, ::-1][:, :EXTREMES]], 1)
        index = torch.from_numpy(chosen.copy()).to(features.device)[:, :, None, None]
        shown = features.take_along_dim(index, 1).float()
        size = min(shown.shape[2], CELLS), min(shown.shape[3], CELLS)
        self._keep(f"features/{where}", functional.adaptive_avg_pool2d(shown, size).cpu().numpy())
        self._keep(f"extremes/{where}", chosen)


def _check(arrays: dict[str, NDArray], count: int) -> None:
    images = arrays["images"]
    lengths = {name: len(array) for name, array in arrays.items()}
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        received = f"images of shape {images.shape} and type {images.dtype}"
    elif set(lengths.values()) != {count}:
        received = ", ".join(f"{length} {name}" for name, length in lengths.items()) + f" and {count} tensors"
    else:
        return
    raise UsageError(
        expected="uint8 images (n, H, W, 3), and for each image a tensor, boxes (M, 4) and one value of each array",
        received=received,
        do="pass n of each",
    )


def _padded(boxes: ArrayLike | Sequence[ArrayLike]) -> NDArray[np.float32]:
    """Return the boxes of n images, (n, 4) or n times (M, 4), as one array (n, M, 4)."""
    lists = [np.asarray(some, np.float32) for some in boxes]  # pyright: ignore[reportGeneralTypeIssues]  # an array gives its rows
    if any(some.size % 4 for some in lists):
        shapes = sorted({some.shape for some in lists})
        raise UsageError(
            expected="boxes (M, 4) for each image", received=f"shapes {shapes[:3]}", do="pass x0, y0, x1, y1"
        )
    padded = np.full((len(lists), max((some.size // 4 for some in lists), default=0), 4), np.nan, np.float32)
    for row, some in zip(padded, lists, strict=True):
        row[: some.size // 4] = some.reshape(-1, 4)
    return padded
