"""The record on an attached model: the names of its sites, and checksums of the host, to compare with later."""

import math
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import UsageError, counted, shortened
from foveate.site_names import parted
from foveate.surgery.core.checksums import Checksums, changed
from foveate.surgery.torch.links import TAKES
from foveate.torch_utils.names import child_of, is_attention, plain_name

KEY = "foveate_attached"
SITE_KEY = "foveate_site"
ARGUMENTS = "foveate_arguments"  # of a site: where the arguments that it attends to are, by their names
SAMPLES = 65536  # of each tensor; a step of training moves all of its numbers


@dataclass
class Attachment:
    """The sites, by their names in the attached model, and a checksum of each tensor of the host."""

    sites: list[str] = field(default_factory=list)
    host: Checksums = field(default_factory=dict)


def remember(model: nn.Module, sites: Mapping[str, nn.Module]) -> None:
    """Add sites to what the model knows, and start to compare the host's tensors, the first time, as they are now."""
    attachment = vars(model).get(KEY)
    if attachment is None:
        attachment = vars(model)[KEY] = Attachment()
        model.register_forward_pre_hook(check_before_running)
    attachment.sites += sites
    attachment.host = {**checksums(model), **attachment.host}
    for name, site in sites.items():
        vars(site).setdefault(SITE_KEY, {})[parted(name)[1]] = (attachment, name)


def remember_host(model: nn.Module) -> None:
    """Start to compare with the host as it is now."""
    for _, holder, attachment in _attachments(model):
        attachment.host = checksums(holder)


def forget_site(site: nn.Module, argument: str) -> None:
    """Drop a site from what the model that it belongs to knows, which need not be at hand."""
    known = vars(site).get(SITE_KEY, {})
    attachment, name = known.pop(argument, (None, ""))
    if not known:
        vars(site).pop(SITE_KEY, None)
    if attachment is not None:
        attachment.sites = [other for other in attachment.sites if other != name]


def forget(model: nn.Module, names: Collection[str] | None = None) -> None:
    """Drop sites, by their names in the model, from what it and the modules in it know; all by default."""
    for prefix, holder, attachment in list(_attachments(model)):
        attachment.sites = [site for site in attachment.sites if names is not None and prefix + site not in names]
        if attachment.sites:
            continue
        del vars(holder)[KEY]
        remove_hook(holder, check_before_running)


def remove_hook(module: nn.Module, ours: Any) -> None:
    """Take one of our functions out of a module's hooks."""
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key in [key for key, hook in hooks.items() if hook is ours]:
            del hooks[key]
            for flags in ("hooks_with_kwargs", "hooks_always_called", "pre_hooks_with_kwargs"):
                vars(module)[f"_forward_{flags}"].pop(key, None)


def records_of(module: nn.Module) -> list[dict[str, Any]]:
    """Return what a module itself, not the modules in it, knows of sites, as dicts to copy and to restore."""
    own = [vars(vars(module)[KEY])] if KEY in vars(module) else []
    return own + [found for key in (SITE_KEY, ARGUMENTS, TAKES) if (found := vars(module).get(key)) is not None]


def remembered(model: nn.Module) -> list[str]:
    """Return the names of the sites where attention was attached, whether or not it is still there."""
    return [prefix + site for prefix, _, attachment in _attachments(model) for site in attachment.sites]


def check(model: nn.Module) -> None:
    """Raise UsageError where a site of the model, or of a module in it, lost its attention since it was attached."""
    for prefix, holder, attachment in _attachments(model):
        _check(holder, attachment, prefix)


def check_before_running(model: nn.Module, args: Any) -> None:
    """The pre-hook of an attached model."""
    if not torch.compiler.is_compiling() and KEY in vars(model):
        _check(model, vars(model)[KEY], "")


def moved(model: nn.Module) -> list[str]:
    """Return the names of the host's tensors that changed since the attention was attached or the host frozen.

    A tensor in another precision is taken for the same.
    """
    return [
        prefix + name
        for prefix, holder, attachment in _attachments(model)
        for name in changed(attachment.host, checksums(holder))
    ]


def checksums(model: nn.Module) -> Checksums:
    """Return the precision and a checksum of each of the host's tensors that has values here."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {
        plain_name(name): (str(tensor.dtype), _checksum(tensor))
        for name, tensor in named
        if not is_attention(name) and type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta
    }


def _checksum(tensor: Tensor) -> int:
    flat = tensor.detach().reshape(-1)
    step = max(1, flat.numel() // SAMPLES)
    while math.gcd(step, 2 * 3 * 5 * 7) > 1:  # a common factor with the size of a kernel would skip positions in it
        step += 1
    sample = flat[::step].to("cpu", copy=True).contiguous()
    return zlib.crc32(sample.view(torch.uint8).numpy().tobytes())


def _check(model: nn.Module, attachment: Attachment, prefix: str) -> None:
    lost = {}
    for name in attachment.sites:
        module, argument = parted(name)
        site = _find(model, module, child_of(argument))
        if site is None or child_of(argument) not in site._modules or not _has_hook(site, argument):
            lost[prefix + name] = "is gone" if site is None else f"is a {type(site).__name__} without it"
    if lost:
        there = counted(len(attachment.sites) - len(lost), "site")
        raise UsageError(
            expected=f"attention at {counted(len(attachment.sites), 'site')}, as it was attached",
            received=f"attention at {there}: {shortened([f'{name!r} {now}' for name, now in lost.items()])}",
            do="replace or fold modules before attaching, or after foveate.bake(model); detach(model, names) forgets "
            "sites that were removed on purpose",
        )


def _has_hook(site: nn.Module, argument: str) -> bool:
    """Return whether the site has hooks: a copy may keep children and lose them."""
    return bool(site._forward_pre_hooks_with_kwargs if argument else site._forward_hooks)


def _find(model: nn.Module, name: str, child: str) -> nn.Module | None:
    """Return the module of a name that has a child, also inside wrappers, which have one child."""
    found = _named(model, name)
    inner = found
    while inner is not None and child not in inner._modules and len(inner._modules) == 1:
        inner = _only_child(inner)
    return found if inner is None or child not in inner._modules else inner


def _named(model: nn.Module, name: str) -> nn.Module | None:
    """Return the module of a name, also inside wrappers."""
    for part in name.split(".") if name else ():
        while part not in model._modules and len(model._modules) == 1:
            model = _only_child(model)
        found = model._modules.get(part)
        if found is None:
            return None
        model = found
    return model


def _only_child(module: nn.Module) -> nn.Module:
    return next(filter(None, module._modules.values()), nn.Module())


def _attachments(model: nn.Module) -> Iterator[tuple[str, nn.Module, Attachment]]:
    for name, module in model.named_modules():
        if isinstance(found := vars(module).get(KEY), Attachment):
            yield f"{plain_name(name)}." if plain_name(name) else "", module, found
