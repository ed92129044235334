"""The attention child of a site: the hook that runs it, and how to find it in a model."""

from typing import Any

import torch
from torch import Tensor, nn

from foveate.bind.torch import Attention
from foveate.errors import UsageError
from foveate.kernels.dispatch import GLOBAL_HOOKS
from foveate.kernels.torch_modules import is_hooked
from foveate.torch_utils.names import CHILD

# Layers whose output is always a new tensor. Subclasses do not count, because they may keep the output.
MAKERS = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)


def apply_attention(site: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Run the attention of a site, as its forward hook.

    It is a plain function, so that models can be copied, pickled, compiled and exported.
    """
    attention: Any = site._modules[CHILD]
    if not torch.compiler.is_compiling() and getattr(attention, "inplace", False) and may_overwrite(site, attention):
        return attention.overwrite(output)
    return attention(output)


def may_overwrite(site: nn.Module, attention: nn.Module) -> bool:
    """Return whether only the attention can hold the site's output: no other hook, mode or code sees it."""
    return (
        type(site) in MAKERS
        and isinstance(attention, Attention)
        and len(site._forward_hooks) == 1
        and not any(GLOBAL_HOOKS)
        and "forward" not in site.__dict__
        and type(attention).forward is Attention.forward
        and not is_hooked(attention)
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._len_torch_function_stack()
    )


def attached(model: nn.Module) -> dict[str, nn.Module]:
    """Return the sites that have attention, by name.

    Raises UsageError for an argument that is not a module, and for a child that no hook runs.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(expected="a torch.nn.Module", received=f"a {type(model).__name__}", do="pass the model itself")
    sites = {name: module for name, module in model.named_modules() if CHILD in module._modules}
    for name, site in sites.items():
        if apply_attention not in site._forward_hooks.values():
            raise UsageError(
                expected=f"the name {CHILD!r} only for attention that runs",
                received=f"a child of that name at {name!r}, which no hook of Foveate runs",
                do="rename the host's own child; after convert_sync_batchnorm and the like, attach again",
            )
    return sites
