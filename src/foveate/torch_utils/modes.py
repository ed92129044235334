"""Training and evaluation mode, module by module, and parts of a model that can be frozen."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

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
