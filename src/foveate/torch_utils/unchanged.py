"""Run a model and restore its state and the random state afterwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


def random_state() -> Callable[[], None]:
    """Return a function that restores the present random state of the CPU and of the GPUs in use."""
    cpu = torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore() -> None:
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)

    return restore


@contextmanager
def as_found(model: nn.Module, training: bool = False) -> Iterator[None]:
    """Put the model in eval or training mode, then restore the attributes, flags and buffers of every module.

    Sets the `training` flags directly, because some models do real work in `train()` and `eval()`, such as merging
    weights.
    """
    attributes = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    contents = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    restore_random_state = random_state()
    try:
        for module, _, _ in attributes:
            module.training = training
        yield
    finally:
        restore_random_state()
        for module, before, buffers in attributes:
            for name in vars(module).keys() - before.keys():
                del vars(module)[name]
            vars(module).update(before)
            module._buffers.update(buffers)
        with torch.no_grad():
            for buffer, version, copy in contents:
                if buffer._version != version or not (buffer.is_meta or torch.equal(buffer, copy)):
                    buffer.copy_(copy)  # batch norms write their statistics without a new version
