"""Training and evaluation mode, module by module."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Hold a model in eval mode; every module comes back in the mode it was in, a norm that was put in eval by itself too."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
