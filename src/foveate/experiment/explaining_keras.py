"""Explain Keras models: their inputs from images, and the maps of each model over them."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from foveate.bind.keras.attention import Attention
from foveate.data.images.datasets import middle
from foveate.errors import UsageError
from foveate.experiment.explaining_cam import cam_classes, checked
from foveate.experiment.sources import listed, name_of, pixels_of
from foveate.gates.explanation import Explanation, unseen
from foveate.gates.maps_keras import capture_keras

_RAW = "Keras models are given files and PIL images as values from 0 to {most}."


def explain_keras(
    model: Any | Mapping[str, Any],
    images: Any,
    *,
    boxes: Sequence[ArrayLike] | None,
    classes: Sequence[str],
    imgsz: int,
    grad_cam: bool | Sequence[str] | None,
    batch: int,
) -> Explanation:
    """Return the explanation of Keras models over arrays of their own input, (N, H, W, C), or over files.

    Files and PIL images are cut to their middle square, in the size of the first model's input (`imgsz` if that is
    open), as values from 0 to 255, for a detector from 0 to 1. Boxes are in pixels of the input. Raises UsageError for
    a model of another framework, and for one without Grad-CAM if that is asked for.
    """
    models = {str(label): one for label, one in model.items()} if isinstance(model, Mapping) else {_named(model): model}
    if not all(isinstance(one, keras.Model) for one in models.values()):
        raise UsageError(
            expected="models of one framework",
            received="models of both frameworks",
            do="explain them one after the other",
        )
    cam = cam_classes(grad_cam, classes)
    cam = True if cam is None else cam
    first = _channels_first(next(iter(models.values())))
    side = _side(next(iter(models.values())), first) or imgsz
    given = listed(images, boxes)
    notes = [one for label, of in models.items() for one in unseen(label, (own.mechanism for own in _attention_in(of)))]
    if any(isinstance(one, str | os.PathLike | Image.Image) for one in given):
        most = 1 if hasattr(next(iter(models.values())), "heads") else 255
        notes.append(_RAW.format(most=most))
        if boxes is not None:
            raise UsageError(
                expected="arrays of the model's own input, where boxes are given",
                received="files or PIL images",
                do="read and resize the images, and give the boxes in pixels of the result",
            )
        inputs = np.stack([middle(pixels_of(one, side)[0], side) for one in given])
        pixels, inputs = inputs, (inputs.transpose(0, 3, 1, 2) if first else inputs) * (most / 255)
    else:
        inputs = np.stack([np.asarray(one) for one in given])
        pixels = np.stack([_shown(one.transpose(1, 2, 0) if first else one) for one in inputs])
    every = {
        label: capture_keras(model, pixels, inputs.astype(np.float32), boxes, batch=batch, cam=cam)
        for label, model in models.items()
    }
    names = [name_of(one, k) for k, one in enumerate(given)]
    return checked(Explanation(names, every, classes, notes), cam, grad_cam)


def _named(model: Any) -> str:
    return ", ".join(dict.fromkeys(type(one).__name__ for one in _attention_in(model))) or "model"


def _attention_in(model: Any) -> list[Attention]:
    layers = model._flatten_layers(include_self=False, recursive=True)
    return [one for one in layers if isinstance(one, Attention)]


def _channels_first(model: Any) -> bool:
    """Return whether a model takes (N, C, H, W)."""
    shape = getattr(model, "input_shape", None)
    return isinstance(shape, tuple) and len(shape) == 4 and shape[1] in (1, 3) and shape[3] not in (1, 3)


def _side(model: Any, first: bool) -> int | None:
    """Return the side of a model's input in pixels, None if it is open."""
    shape = getattr(model, "input_shape", None)
    return shape[2] if isinstance(shape, tuple) and len(shape) == 4 else None


def _shown(array: NDArray) -> NDArray[np.uint8]:
    """Return an input (H, W, C) as pixels (H, W, 3); other values than bytes go from their lowest to their highest."""
    if array.dtype != np.uint8:
        array = np.nan_to_num(array.astype(np.float64))
        array = ((array - array.min()) / max(np.ptp(array), 1e-12) * 255).round().astype(np.uint8)
    return array[..., :3] if array.shape[-1] >= 3 else array[..., :1].repeat(3, -1)
