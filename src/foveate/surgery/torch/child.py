"""The attention child of a site: the hooks that run and guard it, and how to find it in a model."""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.compiler import is_dynamo_compiling
from torch.utils._pytree import tree_leaves

from foveate.bind.torch.attention import Attention
from foveate.errors import UsageError
from foveate.kernels import prepared
from foveate.kernels.dispatch import GLOBAL_HOOKS
from foveate.kernels.prepared import PREPARED
from foveate.kernels.torch_modules import is_hooked
from foveate.site_names import joined, parted
from foveate.spec import arranged
from foveate.surgery.torch import attachment
from foveate.surgery.torch.arguments import Signature, exchange
from foveate.surgery.torch.attachment import ARGUMENTS
from foveate.surgery.torch.links import (
    TAKES,
    Link,
    connect,
    context_names,
    disconnect,
    give_arguments,
    give_last,
    gives_arguments,
)
from foveate.surgery.torch.replaced import Replaced, put_back, swap
from foveate.torch_utils.names import CHILD, HOST, argument_of, child_of, plain_name

# Layers whose output is always a new tensor. Subclasses do not count, because they may keep the output.
MAKERS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.GroupNorm),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


@dataclass(frozen=True)
class AttachedAttention:
    """Attention in a model, the module of its site, and the argument that it attends to, "" for the output.

    `link` brings the map of its context, if it has one.
    """

    module: nn.Module
    argument: str
    attention: Any
    link: Link | None = None


def apply_attention(site: nn.Module, args: Any, output: Tensor) -> Tensor:
    """Run the attention of a site, as its forward hook.

    It is a plain function, so that models can be copied, pickled, compiled and exported.
    """
    state = site.__dict__
    if not is_dynamo_compiling() and (ready := state.get(PREPARED)) is not None:
        # What `may_overwrite` asks of the site, without what the function would cost.
        only = len(state["_forward_hooks"]) == 1 and "forward" not in state and type(site) in MAKERS
        if only and state["_modules"].get(CHILD) is ready.attention and ready.run(output):
            return output
    attention = _child(site, "")
    if "" in state.get(TAKES, {}):
        return _with_context(site, "", attention)(output)
    if not torch.compiler.is_compiling() and getattr(attention, "inplace", False) and may_overwrite(site, attention):
        y = attention.overwrite(output)
        if y is output:
            prepared.prepare(site, attention, output)
        return y
    return attention(output)


def attend_to_arguments(
    site: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Run the attention on the arguments of a site, as its forward pre-hook."""
    places, takes = site.__dict__.get(ARGUMENTS, {}), site.__dict__.get(TAKES, {})
    for argument in places:
        if argument not in takes:
            args, kwargs = exchange(args, kwargs, argument, places[argument], _child(site, argument))
    give_arguments(site, args, kwargs)  # one argument may be the context of another, and the reverse
    for argument in places:
        if argument in takes:
            attention = _with_context(site, argument, _child(site, argument))
            args, kwargs = exchange(args, kwargs, argument, places[argument], attention)
    return args, kwargs


def refuse_tracing(site: nn.Module, args: Any, kwargs: Any) -> None:
    """Refuse FX tracing, as the pre-hook of a site: tools that change the traced graph would drop the attention."""
    if len(args) == 1 and type(args[0]) is Tensor and not kwargs:
        return  # the common case, without what the others cost
    if any(isinstance(argument, fx.Proxy) for argument in tree_leaves((args, kwargs))):
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


def attached(model: nn.Module) -> dict[str, AttachedAttention]:
    """Return the attention by the name of its site, without the prefixes of torch.compile.

    Raises UsageError for what is no module, for a baked model, for a child that no hook runs, and where a site was lost
    since attaching.
    """
    sites = _hooked(model)
    attachment.check(model)
    return sites


def known_sites(model: nn.Module) -> list[str]:
    """Return the names of the sites with attention, and of those that lost it. Raises UsageError for a baked model."""
    return list(dict.fromkeys([*_hooked(model), *attachment.remembered(model)]))


def contexts(model: nn.Module) -> dict[str, str]:
    """Return the names of the contexts by the names of their sites, in this model."""
    names = context_names(model)
    return {site: names.get(held.link, held.link.context) for site, held in _hooked(model).items() if held.link}


def _hooked(model: nn.Module) -> dict[str, AttachedAttention]:
    if not isinstance(model, nn.Module):
        raise UsageError(expected="a torch.nn.Module", received=f"a {type(model).__name__}", do="pass the model itself")
    if is_baked(model):
        do = "use the model that was baked: attached_state_dict(baked) is a state dict for it"
        raise UsageError(expected="a model with attention attached by hooks", received="a baked one", do=do)
    found: dict[str, AttachedAttention] = {}
    for name, module in model.named_modules():
        for child, argument in children_of(module):
            if not _runs(module, argument):
                raise UsageError(
                    expected=f"the name {child!r} only for attention that runs",
                    received=f"a child of that name at {name!r}, which no hook of Foveate runs",
                    do="rename the host's own child; after convert_sync_batchnorm and the like, attach again",
                )
            found[joined(plain_name(name), argument)] = AttachedAttention(
                module, argument, module._modules[child], vars(module).get(TAKES, {}).get(argument)
            )
    return found


def children_of(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of a module's attention children, with the arguments that they attend to."""
    for child in list(module._modules.keys()):  # of a scripted module, which cannot be iterated
        if (argument := argument_of(child)) is not None:
            yield child, argument


def _runs(module: nn.Module, argument: str) -> bool:
    """Return whether a hook of the module runs the attention on an argument or, with "", on the output."""
    if not argument:
        return apply_attention in module._forward_hooks.values()
    hooked = attend_to_arguments in module._forward_pre_hooks.values()
    return hooked and argument in vars(module).get(ARGUMENTS, {})


def _with_context(site: nn.Module, argument: str, attention: Any) -> Callable[[Any], Any]:
    """Return attention as a function of the map of its site alone."""
    link = vars(site).get(TAKES, {}).get(argument)
    return attention if link is None else lambda x: attention(*link.join(x))


def _child(site: nn.Module, argument: str) -> Any:
    attention = site._modules.get(child_of(argument))
    if attention is None:
        raise _rebuilt(
            f"a {type(site).__name__} that was put in the place of a site with its hooks, and not its attention"
        )
    return attention


def is_baked(model: nn.Module) -> bool:
    """Return whether any site of the model was made ordinary by `bake`."""
    return isinstance(model, nn.Module) and any(HOST in module._modules for module in model.modules())


def insert(
    model: nn.Module,
    attentions: Mapping[str, nn.Module],
    replaced: Collection[str] = (),
    contexts: Mapping[str, str] | None = None,
) -> None:
    """Give each site, by its name in the model, its attention and its context; take out the modules to be replaced."""
    out = [model.get_submodule(name) for name in replaced]
    swap(model.modules(), {module: Replaced(module) for module in out})
    for name, attention in attentions.items():
        module, argument = parted(name)
        _insert_into(model.get_submodule(module), argument, attention)
    for name, context in (contexts or {}).items():
        module, argument = parted(name)
        attention: Any = attentions[name]
        link = Link(context, name, partial(arranged, attention.mechanism))
        vars(model.get_submodule(module)).setdefault(TAKES, {})[argument] = link
        connect(model, link)
        if gives_arguments(source := model.get_submodule(parted(context)[0])):
            _hook_arguments(source)
        give_last(source)
    attachment.remember(model, {name: model.get_submodule(parted(name)[0]) for name in attentions})
    _recompile()


def _insert_into(site: nn.Module, argument: str, attention: nn.Module) -> None:
    if argument:
        vars(site).setdefault(ARGUMENTS, {})[argument] = Signature(site).place(argument)
        _hook_arguments(site)
    else:
        site.register_forward_hook(apply_attention)
    if refuse_tracing not in site._forward_pre_hooks.values():
        site.register_forward_pre_hook(refuse_tracing, with_kwargs=True, prepend=True)
    site.add_module(child_of(argument), attention)
    if type(site).__module__.startswith("torch."):
        vars(site)["__module__"] = __name__  # by which FX knows the layers that it does not look into
    give_last(site)


def _hook_arguments(site: nn.Module) -> None:
    if attend_to_arguments not in site._forward_pre_hooks.values():
        site.register_forward_pre_hook(attend_to_arguments, with_kwargs=True)


def exchange_attention(model: nn.Module, attentions: Mapping[str, nn.Module]) -> None:
    """Put other attention in the place of that of each site, by its name in the model."""
    for name, held in _hooked(model).items():
        if name in attentions:
            held.module._modules[child_of(held.argument)] = attentions[name]
            vars(held.module).pop(PREPARED, None)
    if attentions:
        _recompile()


def remove(model: nn.Module, names: Collection[str] | None = None) -> None:
    """Take the attention off the sites of these names, of all by default, and forget those that were lost.

    Modules that it replaced come back.
    """
    for name, site in list(model.named_modules()):
        for argument in ["", *vars(site).get(ARGUMENTS, {})]:
            if names is None or joined(plain_name(name), argument) in names:
                _remove_from(model, site, argument)
    bare = [module for module in model.modules() if isinstance(module, Replaced) and not any(children_of(module))]
    put_back(model, bare)
    attachment.forget(model, names)
    _recompile()


def _remove_from(model: nn.Module, site: nn.Module, argument: str) -> None:
    if argument:
        del vars(site)[ARGUMENTS][argument]
    elif apply_attention not in site._forward_hooks.values():
        return
    site._modules.pop(child_of(argument), None)
    vars(site).pop(PREPARED, None)
    if not argument:
        attachment.remove_hook(site, apply_attention)
    elif not vars(site)[ARGUMENTS]:
        del vars(site)[ARGUMENTS]
        if not gives_arguments(site):
            attachment.remove_hook(site, attend_to_arguments)
    if ARGUMENTS not in vars(site) and apply_attention not in site._forward_hooks.values():
        attachment.remove_hook(site, refuse_tracing)
        vars(site).pop("__module__", None)
    attachment.forget_site(site, argument)
    takes = vars(site).get(TAKES, {})
    if (link := takes.pop(argument, None)) is not None:
        for module, hook in disconnect(model, link):
            attachment.remove_hook(module, hook)
        if not takes:
            del vars(site)[TAKES]
        for source in model.modules():
            if ARGUMENTS not in vars(source) and not gives_arguments(source):
                attachment.remove_hook(source, attend_to_arguments)


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
