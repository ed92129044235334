"""Grad-CAM of a classifier, by captum: where the features raise the score of the class that it predicts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.errors import naming_extras
from foveate.torch_utils.modes import in_eval
from foveate.torch_utils.names import is_attention, plain_name, unwrapped


def grad_cam(
    model: nn.Module, tensors: Tensor, targets: NDArray[np.int64] | None = None, *, batch: int = 16
) -> tuple[NDArray[np.float32], str] | None:
    """Return the Grad-CAM of images (n, C, H, W), (n, h, w) of at least 0, and the module whose features it weighs.

    `targets` (n,) are classes; None takes those predicted. The module is the one that returns a map last, such as the
    last stage. None for a model whose output is not (n, classes), or that has no such module. Parameters keep their
    gradients. Raises MissingExtra without captum.
    """
    with naming_extras():
        from captum.attr import LayerGradCam

    host = unwrapped(model)
    device = next(host.parameters(), tensors).device
    with in_eval(host), _without_gradients(host), torch.inference_mode(False), torch.enable_grad():
        name, logits = last_map(host, tensors[:1].to(device))
        if not name or logits is None:
            return None
        cam, found = LayerGradCam(host, host.get_submodule(name)), []
        for at in range(0, len(tensors), batch):
            images = tensors[at : at + batch].to(device).clone().requires_grad_()
            some = host(images).argmax(1) if targets is None else torch.as_tensor(targets[at : at + batch]).to(device)
            maps: Any = cam.attribute(images, target=some, relu_attributions=True)
            found.append(maps.detach().float().mean(1).cpu().numpy())
    return np.concatenate(found), name


def last_map(model: nn.Module, image: Tensor) -> tuple[str, Tensor | None]:
    """Return the name of the module that returns a map last, "" for none, and the logits, None for no class."""
    last, handles = [""], []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1:
                last[0] = name

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
    is_logits = isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 1
    return last[0], output if is_logits else None


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
