"""Grad-CAM by captum: where the features raise the score of a class, or of a detector's best box."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from foveate.detection.heads import decode_all
from foveate.errors import UsageError, naming_extras
from foveate.torch_utils.modes import in_eval
from foveate.torch_utils.names import is_attention, plain_name, unwrapped

PREDICTED, BEST_BOX = "predicted class", "best box"


@dataclass(frozen=True)
class Cam:
    """Grad-CAM (n, h, w) of at least 0, by what it explains, and the modules whose features it weighs."""

    maps: Mapping[str, NDArray[np.float32]]
    layer: str


def grad_cam(
    model: nn.Module, tensors: Tensor, classes: Mapping[str, int] | None = None, *, batch: int = 16
) -> Cam | None:
    """Return the Grad-CAM of images (n, C, H, W) for each of `classes`; None explains the predicted class.

    Of a detector it explains the score of the best box, or of the best box of each class, by the features that enter
    its heads: those of the head that makes the box. Otherwise the features are those of the module that returns a map
    last, such as the last stage. Parameters keep their gradients. None for a model whose output is neither (n, classes)
    nor that of a detector, or that has no such module. Raises MissingExtra without captum, UsageError for a class that
    the model does not have.
    """
    with naming_extras():
        from captum.attr import LayerGradCam

    host = unwrapped(model)
    device = next(host.parameters(), tensors).device
    with in_eval(host), _without_gradients(host), torch.inference_mode(False), torch.enable_grad():
        names, score = _explained(host, tensors[:1].to(device))
        if not names or score is None:
            return None
        heads = hasattr(host, "heads")
        found: dict[str, list[NDArray[np.float32]]] = {}
        for at in range(0, len(tensors), batch):
            images = tensors[at : at + batch].to(device).clone().requires_grad_()
            scores = score(images).detach()
            for title, target in targets(scores, classes, heads).items():
                maps: list[Any] = [
                    LayerGradCam(score, host.get_submodule(name)).attribute(
                        images, target=target, attribute_to_layer_input=heads, relu_attributions=True
                    )
                    for name in names
                ]
                found.setdefault(title, []).append(joined([one.detach().float().cpu().numpy() for one in maps]))
    return Cam({title: np.concatenate(parts) for title, parts in found.items()}, " and ".join(names))


def targets(scores: Any, classes: Mapping[str, int] | None, detector: bool) -> Mapping[str, Any]:
    """Return the numbers of the scores (n, classes) that are explained, by title: those of the classes, or the best.

    Raises UsageError for a class that the model does not have.
    """
    if classes is None:
        return {BEST_BOX if detector else PREDICTED: scores.argmax(1)}
    count = scores.shape[1]
    for name, number in classes.items():
        if not 0 <= number < count:
            raise UsageError(
                expected=f"a class of the model, which has {count}",
                received=f"{name!r}, number {number}",
                do="name another class for Grad-CAM",
            )
    return classes


def last_map(model: nn.Module, image: Tensor) -> tuple[str, Any]:
    """Return the name of the module that returns a map last, "" for none, and the output of the model."""
    maps, output = _run(model, image)
    return ([name for name, found in maps if min(found.shape[2:]) > 1] or [""])[-1], output


def _explained(model: nn.Module, image: Tensor) -> tuple[list[str], Callable[[Tensor], Tensor] | None]:
    """Return the modules whose features are weighed, and the function from images to scores (n, classes)."""
    heads: Any = getattr(model, "heads", None)
    if heads is None:
        last, output = last_map(model, image)
        is_logits = isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 1
        return [last] if last else [], model if is_logits else None
    maps, outputs = _run(model, image)
    made = [[name for name, found in maps if found is output] for output in outputs]
    names = [some[-1] for some in made if some]

    def best(images: Tensor) -> Tensor:
        return decode_all(torch, model(images), heads)[1].amax(1)

    return (names, best) if len(names) == len(heads) else ([], None)


def _run(model: nn.Module, image: Tensor) -> tuple[list[tuple[str, Tensor]], Any]:
    """Run a model; return the modules that return maps, in their order, with the maps, and the output."""
    found: list[tuple[str, Tensor]] = []
    handles = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                found.append((name, output))

        return hook

    try:
        for name, module in model.named_modules():
            if name and not is_attention(name):
                handles.append(module.register_forward_hook(note(plain_name(name))))
        with torch.no_grad():
            output = model(image)
    finally:
        for handle in handles:
            handle.remove()
    return found, output


def joined(maps: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the sum of maps (n, 1, h, w) in the size of the finest: of heads, only one has made a box."""
    finest = max((one.shape[2:] for one in maps), key=lambda size: size[0] * size[1])
    parts = [functional.interpolate(torch.from_numpy(one), finest, mode="bilinear") for one in maps]
    return torch.stack(parts).sum(0)[:, 0].numpy()


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    """Keep parameters from gathering gradients inside the block: only the features need them."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
