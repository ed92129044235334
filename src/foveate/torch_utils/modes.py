"""Training and evaluation mode, module by module, and what is held still while the rest learns."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from foveate.torch_utils.names import is_attention


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


class Held:
    """The trainable parameters and training-mode norms of some modules.

    Attached attention, frozen parameters and norms, and the layers named in `but` are left out.
    """

    def __init__(self, *parts: nn.Module, but: Collection[str] = ()):
        named = [named for part in parts for named in part.named_modules()]
        hosts = [module for name, module in named if not is_attention(name) and name not in but]
        self.parameters = [p for host in hosts for p in host.parameters(recurse=False) if p.requires_grad]
        self.norms = [host for host in hosts if isinstance(host, _NormBase) and host.training]

    def hold(self, still: bool) -> None:
        """Keep it as it is, or let it learn (again)."""
        for parameter in self.parameters:
            parameter.requires_grad_(not still)
        for norm in self.norms:
            norm.training = not still  # by itself: attention may be its child
