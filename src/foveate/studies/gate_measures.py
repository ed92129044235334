"""What the gates of a trained model do with test images: maps to look at, and whether they look at the objects."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from foveate.data import BoxData, Data
from foveate.detection.confusion import confusion_matrix
from foveate.detection.detections import GroundTruth
from foveate.gates.maps import save_maps
from foveate.gates.pointing_game import gaze
from foveate.models.detectors import detect

AnyData: TypeAlias = Data | BoxData

_PICTURED = 8  # images whose maps are kept
_GAZED = 512  # images whose gates are held against the true boxes


def measure_gaze(model: nn.Module, data: AnyData) -> dict[str, Any] | None:
    """Hold the gates against the true boxes of the first test images; None without boxes, or without a gate that has a place."""
    indices = range(min(_GAZED, len(data.test)))
    images = Subset(data.test, indices)  # pyright: ignore[reportArgumentType]  # a map-style dataset, if not by name
    if isinstance(data, BoxData):
        boxes = [data.test.letterbox(index).to_input(data.test.truth(index).boxes) for index in indices]
        whole = [(box.pad_x, box.pad_y, *np.add((box.pad_x, box.pad_y), box.inner)) for box in map(data.test.letterbox, indices)]
        return gaze(model, images, boxes, within=whole, batch=16) or None
    if data.boxes is None:
        return None
    return gaze(model, images, data.boxes["test"][: len(images)]) or None


@torch.inference_mode()
def keep_maps(model: nn.Module, data: AnyData, path: Path) -> None:
    """Keep the maps of a few test images, spread over the split and the same for every model."""
    chosen = np.unique(np.linspace(0, len(data.test) - 1, _PICTURED).astype(int)).tolist()
    images = torch.stack([data.test[index][0] for index in chosen])
    shown = images.to(next(model.parameters()).device)
    if isinstance(data, BoxData):
        _keep_boxes(model, data, chosen, shown, path)
    else:
        boxes = None if data.boxes is None else data.boxes["test"][chosen]
        told = {"labels": data.test.labels[chosen], "predictions": model(shown).argmax(1).cpu().numpy()}
        save_maps(model, np.stack([data.picture("test", index) for index in chosen]), images, told, boxes, path)


def _keep_boxes(model: nn.Module, data: BoxData, chosen: Sequence[int], images: Tensor, path: Path) -> None:
    """Keep maps over the network's inputs, as the gates see them, with what was found there."""
    boxes, counts = [], []
    for index, found in zip(chosen, detect(model, images), strict=True):
        picture, letterbox = data.test.truth(index), data.test.letterbox(index)
        boxes.append(letterbox.to_input(picture.boxes))
        matrix = confusion_matrix([GroundTruth(*picture.objects)], [found.on_image(letterbox)], len(data.classes))
        hits = int(matrix.trace())
        counts.append((int(matrix[:-1].sum()), hits, int(matrix[:, :-1].sum()) - hits))
    objects, right, false = zip(*counts, strict=True)
    told: dict[str, Any] = {"objects": objects, "found": right, "false": false}
    pixels = (images.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
    save_maps(model, pixels, images, told, boxes, path)
