"""Batch norms whose statistics are those of the batches of all processes.

Torch's SyncBatchNorm needs a GPU, and takes the place of the modules. This computes on every device, and the modules
stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.nn import functional as exchange
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def synchronised(model: nn.Module) -> Iterator[None]:
    """Let the model's batch norms use the statistics of all processes inside the block."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.forward = partial(_forward, norm)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not norm.training:
        return type(norm).forward(norm, x)
    axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
    values = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    own = torch.cat([values.sum(axes), values.new_tensor([values.numel() / values.shape[1]])])
    sums: Tensor = exchange.all_reduce(own)
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = values - mean.reshape(shape)
    variance: Tensor = exchange.all_reduce(centred.square().sum(axes)) / count
    _remember(norm, mean.detach(), variance.detach() * (count / (count - 1)))
    y = centred * (variance + norm.eps).rsqrt().reshape(shape)
    if norm.affine:
        y = y * norm.weight.reshape(shape) + norm.bias.reshape(shape)
    return y.to(x.dtype)


def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        part = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), part)
        norm.running_var.lerp_(variance.to(norm.running_var.dtype), part)
