"""Save attention maps as `maps.npz`, which the report shows."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from foveate.errors import UsageError
from foveate.files import write_whole
from foveate.gates.record_torch import record
from foveate.gates.recording import RecordedGate
from foveate.torch_utils.modes import in_eval


def save_maps(
    model: nn.Module,
    images: NDArray[np.uint8],
    tensors: Tensor,
    numbers: Mapping[str, ArrayLike],
    boxes: ArrayLike | Sequence[ArrayLike] | None,
    path: Path,
) -> None:
    """Run `model` once on a few images and write its gates to `path`, as a whole file or not at all.

    The file holds `images` (n, H, W, 3) as shown, and each array (n,) in `numbers` under its name: `labels` and
    `predictions`, or for detection the counts of `objects`, of `found` objects and of `false` detections. Unless None,
    it holds `boxes` (n, M, 4) in pixels of the images, filled up with NaN. Of gates it holds `gate/<site>/<kind>` (n,
    h, w) for spatial, row and column gates (the latter two averaged over channels and repeated along the other side),
    and `channel/<site>` (n, C). Raises UsageError if the arguments do not belong together.
    """
    arrays: dict[str, NDArray] = {
        "images": np.asarray(images),
        **{name: np.asarray(values) for name, values in numbers.items()},
    }
    if boxes is not None:
        arrays["boxes"] = _padded(boxes)
    _check(arrays, len(tensors))
    with in_eval(model), torch.no_grad(), record(model) as maps:
        model(tensors.to(next(model.parameters(), tensors).device))
    for recorded in maps.gates:
        key = f"channel/{recorded.site}" if recorded.kind == "channel" else f"gate/{recorded.site}/{recorded.kind}"
        arrays[key] = _spread(recorded)
    archive = io.BytesIO()
    np.savez_compressed(archive, allow_pickle=False, **arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, archive.getvalue())


def _spread(recorded: RecordedGate[Tensor]) -> NDArray[np.float32]:
    gate = recorded.gate.float().numpy()
    if recorded.kind == "channel":
        return gate[:, :, 0, 0]
    return np.ascontiguousarray(np.broadcast_to(gate.mean(1), (len(gate), *recorded.size)))


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
