"""The layers that the identity start sets to 0, and random values for them in tests, as if trained."""

from collections.abc import Iterator

import torch
from torch import nn

from foveate.bind.torch.attention import Attention
from foveate.parts import flat


def last_layers(module: Attention) -> list[nn.Module]:
    """Return the last learnable layers before the gates, as the mechanism marks them."""
    return [
        module.get_submodule(path)
        for path, part in flat(module.mechanism.parts(module.channels)).items()
        if getattr(part, "last", False)
    ]


def wake(model: nn.Module, seed: int = 0) -> None:
    """Give every last layer in a model random weights, so that attention with the identity start has an effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in _last_parameters(model):
            parameter.copy_(torch.empty(parameter.shape).normal_(0, 0.5, generator=generator))


def put_to_sleep(model: nn.Module) -> None:
    """Set every last layer in a model to 0, as the identity start does."""
    with torch.no_grad():
        for parameter in _last_parameters(model):
            parameter.zero_()


def _last_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        for layer in last_layers(module) if isinstance(module, Attention) else ():
            yield from layer.parameters()
