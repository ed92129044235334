"""The child that a site gets: its name, the hook that runs it, and how it is found again."""

from typing import Any

from torch import Tensor, nn

from foveate.errors import UsageError

CHILD = "foveate_attention"
DATA_PARALLEL = (nn.parallel.DistributedDataParallel, nn.DataParallel)


def apply_attention(site: nn.Module, args: Any, output: Tensor) -> Tensor:
    """The forward hook of a site; a function of the module, so that models can be copied, pickled, compiled and exported."""
    return getattr(site, CHILD)(output)


def attached(model: nn.Module) -> dict[str, nn.Module]:
    """Return the sites that have attention, by name. Raises UsageError for what is no module, and for a child that no hook runs."""
    if not isinstance(model, nn.Module):
        raise UsageError(expected="a torch.nn.Module", received=f"a {type(model).__name__}", do="pass the model itself")
    sites = {name: module for name, module in model.named_modules() if CHILD in module._modules}
    for name, site in sites.items():
        if apply_attention not in site._forward_hooks.values():
            raise UsageError(
                expected=f"the name {CHILD!r} for attention that runs",
                received=f"a child of that name at {name!r}, which no hook of Foveate runs",
                do="rename it, if it is the host's own; else attach after what replaced its site, such as convert_sync_batchnorm",
            )
    return sites


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside the wrappers of torch.compile and data parallelism."""
    inner = model.module if isinstance(model, DATA_PARALLEL) else getattr(model, "_orig_mod", None)
    return model if inner is None else unwrapped(inner)


def plain_name(name: str) -> str:
    """Return the name of a module as it was before torch.compile wrapped any module around it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
