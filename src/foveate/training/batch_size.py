"""Refuse batches that leave a batch norm one value per channel."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from foveate import kernels
from foveate.errors import UsageError
from foveate.torch_utils.unchanged import as_found
from foveate.training.batches import Samples, share
from foveate.training.fit_options import FitOptions
from foveate.training.tasks import task


def check_batch_size(model: nn.Module, samples: Samples, options: FitOptions, name: str) -> None:
    """Refuse a training in which a batch norm sees one value per channel: one image per batch, with a 1 x 1 map.

    The model stays unchanged. Raises UsageError, and DataError for an unreadable image.
    """
    kept = share(len(samples), options.fraction)
    if min(options.batch, len(kept)) != 1:
        return
    shape = task(name).smallest(tuple(samples[kept[0]][0].shape), options)
    alone: list[nn.Module] = []

    def look(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs[0].numel() == inputs[0].shape[1]:
            alone.append(norm)

    handles = [
        norm.register_forward_pre_hook(look)
        for norm in model.modules()
        if isinstance(norm, _BatchNorm) and norm.training
    ]
    try:
        with as_found(model), torch.no_grad(), kernels.using("reference"):
            model(torch.zeros(1, *shape, device=next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    if alone:
        raise UsageError(
            expected="two values or more per channel for each batch norm",
            received=f"one image in a batch, of {shape[-2]} x {shape[-1]} pixels, whose map is 1 x 1 at a norm",
            do="choose a larger --imgsz, or two images or more in a batch (--batch, --fraction)",
        )
