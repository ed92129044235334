"""What stands in a model where attention replaced a module, and how that module comes back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Replaced(nn.Module):
    """What stands in the place of a module that attention replaced: it returns its input, and the attention follows.

    The module is kept for `detach`. It is no child, so that it neither runs nor trains nor is in the state dict, but it
    moves to other devices and precisions with the model.
    """

    replaced: nn.Module

    def __init__(self, replaced: nn.Module):
        super().__init__()
        vars(self)["replaced"] = replaced
        self.training = replaced.training

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        self.replaced._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """Describe the module in its repr."""
        return type(self.replaced).__name__


def swap(holders: Iterable[nn.Module], new: Mapping[nn.Module, nn.Module]) -> None:
    """Put new modules in the place of others, wherever one of the holders has them as a child."""
    for holder in list(holders):
        for key, child in holder._modules.items():
            if child is not None and child in new:
                holder._modules[key] = new[child]


def put_back(model: nn.Module, sites: Iterable[nn.Module]) -> None:
    """Put the modules that attention replaced back in their places."""
    back: dict[nn.Module, nn.Module] = {site: site.replaced for site in sites if isinstance(site, Replaced)}
    for site, module in back.items():
        if module.training != site.training:
            module.train(site.training)
    swap(model.modules(), back)


@contextmanager
def replaced_put_back(model: nn.Module) -> Iterator[None]:
    """Have the modules that attention replaced in their places while the context is active."""
    sites = {site.replaced: site for site in model.modules() if isinstance(site, Replaced)}
    put_back(model, sites.values())
    try:
        yield
    finally:
        swap(model.modules(), sites)
