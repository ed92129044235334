"""Training and evaluation mode, module by module, and parts of a model that can be frozen."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from foveate.torch_utils.names import is_attention


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Keep a model in eval mode inside the block; afterwards restore the mode of each module."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class Freezable:
    """The trainable parameters and training-mode norms of some modules, to freeze and unfreeze.

    Leaves out attached attention, parameters and norms that are already frozen, and the layers named in `but`.
    """

    def __init__(self, *parts: nn.Module, but: Collection[str] = ()):
        named = [named for part in parts for named in part.named_modules()]
        hosts = [module for name, module in named if not is_attention(name) and name not in but]
        self.parameters = [p for host in hosts for p in host.parameters(recurse=False) if p.requires_grad]
        self.norms = [host for host in hosts if isinstance(host, _NormBase) and host.training]

    def set_frozen(self, frozen: bool) -> None:
        """Freeze the parameters and the statistics of the norms, or unfreeze them."""
        for parameter in self.parameters:
            parameter.requires_grad_(not frozen)
        for norm in self.norms:
            norm.training = not frozen  # not norm.train(), as attention may be its child


def stay_in_eval(model: nn.Module) -> None:
    """Put the norms of the host in eval mode; `train()` has no effect on them while their weights are frozen."""
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and not is_attention(name):
            module.training = False
            vars(module)["train"] = partial(_train_unless_frozen, module)


def _train_unless_frozen(norm: nn.Module, mode: bool = True) -> nn.Module:
    type(norm).train(norm, mode)  # of its children too: attention may be one
    norm.training = mode and any(parameter.requires_grad for parameter in norm.parameters(recurse=False))
    return norm
