"""The attention child of a site: the hooks that run and guard it, and how to find it in a model."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from foveate.bind.torch import Attention
from foveate.errors import UsageError
from foveate.kernels.dispatch import GLOBAL_HOOKS
from foveate.kernels.torch_modules import is_hooked
from foveate.surgery.torch import attachment
from foveate.surgery.torch.replaced import Replaced, put_back, swap
from foveate.torch_utils.names import CHILD, HOST, plain_name

# Layers whose output is always a new tensor. Subclasses do not count, because they may keep the output.
MAKERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.GroupNorm),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


def apply_attention(site: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Run the attention of a site, as its forward hook.

    It is a plain function, so that models can be copied, pickled, compiled and exported.
    """
    attention: Any = site._modules.get(CHILD)
    if attention is None:
        raise _rebuilt(
            f"a {type(site).__name__} that was put in the place of a site with its hooks, and not its attention"
        )
    if not torch.compiler.is_compiling() and getattr(attention, "inplace", False) and may_overwrite(site, attention):
        return attention.overwrite(output)
    return attention(output)


def refuse_tracing(site: nn.Module, args: Any) -> None:
    """Refuse FX tracing, as the pre-hook of a site: tools that change the traced graph would drop the attention."""
    if any(isinstance(argument, fx.Proxy) for argument in args):
        raise _rebuilt(f"FX tracing of a {type(site).__name__} with attention attached")


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

    Raises UsageError for what is no module, for a baked model, for a child that no hook runs, and where a site was lost
    since attaching.
    """
    sites = _hooked(model)
    attachment.check(model)
    return sites


def known_sites(model: nn.Module) -> list[str]:
    """Return the names of the sites with attention, and of those that lost it. Raises UsageError for a baked model."""
    return list(dict.fromkeys([*map(plain_name, _hooked(model)), *attachment.remembered(model)]))


def _hooked(model: nn.Module) -> dict[str, nn.Module]:
    if not isinstance(model, nn.Module):
        raise UsageError(expected="a torch.nn.Module", received=f"a {type(model).__name__}", do="pass the model itself")
    if is_baked(model):
        do = "use the model that was baked: attached_state_dict(baked) is a state dict for it"
        raise UsageError(expected="a model with attention attached by hooks", received="a baked one", do=do)
    sites = {name: module for name, module in model.named_modules() if CHILD in module._modules}
    for name, site in sites.items():
        if apply_attention not in site._forward_hooks.values():
            raise UsageError(
                expected=f"the name {CHILD!r} only for attention that runs",
                received=f"a child of that name at {name!r}, which no hook of Foveate runs",
                do="rename the host's own child; after convert_sync_batchnorm and the like, attach again",
            )
    return sites


def is_baked(model: nn.Module) -> bool:
    """Return whether any site of the model was made ordinary by `bake`."""
    return isinstance(model, nn.Module) and any(HOST in module._modules for module in model.modules())


def insert(model: nn.Module, attentions: Mapping[str, nn.Module], replaced: Collection[str] = ()) -> None:
    """Give each site, by its name in the model, its attention, and take the modules that are replaced out."""
    out = [model.get_submodule(name) for name in replaced]
    swap(model.modules(), {module: Replaced(module) for module in out})
    sites = {name: model.get_submodule(name) for name in attentions}
    for name, site in sites.items():
        site.register_forward_hook(apply_attention)
        site.register_forward_pre_hook(refuse_tracing)
        site.add_module(CHILD, attentions[name])
        if type(site).__module__.startswith("torch."):
            vars(site)["__module__"] = __name__  # by which FX knows the layers that it does not look into
    attachment.remember(model, sites)
    _recompile()


def exchange(model: nn.Module, attentions: Mapping[str, nn.Module]) -> None:
    """Put other attention in the place of that of each site, by its name in the model."""
    for name, site in model.named_modules():
        if plain_name(name) in attentions:
            site._modules[CHILD] = attentions[plain_name(name)]
    if attentions:
        _recompile()


def remove(model: nn.Module, names: Collection[str] | None = None) -> None:
    """Take the attention off the sites of these names, of all by default, and forget those that were lost.

    Modules that it replaced come back.
    """
    found = [site for name, site in model.named_modules() if names is None or plain_name(name) in names]
    for site in found:
        _remove_from(site)
    put_back(model, found)
    attachment.forget(model, names)
    _recompile()


def _remove_from(site: nn.Module) -> None:
    if apply_attention not in site._forward_hooks.values():
        return
    site._modules.pop(CHILD, None)
    attachment.remove_hook(site._forward_hooks, apply_attention)
    attachment.remove_hook(site._forward_pre_hooks, refuse_tracing)
    vars(site).pop("__module__", None)
    attachment.forget_site(site)


def _recompile() -> None:
    """Have every compiled function compile anew, for torch.compile does not notice hooks that come or go."""
    if (dynamo := sys.modules.get("torch._dynamo")) is not None:
        dynamo.reset_code_caches()


def _rebuilt(received: str) -> UsageError:
    return UsageError(
        expected="a tool that runs the model, and does not rebuild it without its hooks",
        received=received,
        do="pass the tool foveate.bake(model), whose attention is ordinary modules",
    )
