"""Attaching attention to a live model, and taking it off again: check first, mutate last, leave no trace of a failure."""

import copy
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from foveate.bind.torch import Attention
from foveate.checks import check_flag
from foveate.errors import UsageError
from foveate.spec import Start
from foveate.surgery.core.plans import Plan
from foveate.surgery.torch.child import apply_attention, attached
from foveate.surgery.torch.example import Example
from foveate.surgery.torch.prepare import AnyMechanism, Prepared, prepare
from foveate.surgery.torch.probe import watch
from foveate.surgery.torch.sites import Where
from foveate.torch_utils.modes import Held
from foveate.torch_utils.names import CHILD, is_attention
from foveate.torch_utils.unchanged import random_state


@torch.inference_mode(False)  # what is built inside it could not be trained
def attach(
    model: nn.Module,
    mechanism: AnyMechanism,
    where: Where = "residual",
    *,
    example: Example = None,
    start: Start = "identity",
    inplace: bool = True,
    **options: Any,
) -> Plan:
    """Give each chosen module of the model, in place, an attention that works on its output (N, C, H, W); return the plan.

    Args:
        model: the host. Its own state-dict keys stay as they are.
        mechanism: a name ("cbam"), a `Mechanism` or its class, or a function of the channels that returns a new module.
        where: "residual" (the branch that enters each residual addition), "stage" (the end of each run of blocks of one
            resolution), a pattern such as "layer[34].*.bn3", a module type, a predicate `(name, module, shape) -> bool`, or a list.
        example: what the model is run on once to see its shapes: an input, a tuple of inputs, or a shape (1, 3, 224, 224).
        start: "identity" leaves the output of the model equal at first; "paper" is the published behaviour. A factory's own affair.
        inplace: let kernels overwrite a site's output where no gradient needs it and nobody else can hold it. The numbers are the same.
        options: the mechanism's, such as reduction=8.

    Raises:
        UsageError: for whatever cannot work; the model is then as it was, and so is the random state.
    """
    check_flag("inplace", inplace)
    restore = random_state()
    try:
        prepared = prepare(model, mechanism, where, example=example, start=start, **options)
        install(model, prepared, inplace=inplace)
    except BaseException:
        restore()
        raise
    return prepared.plan


def detach(model: nn.Module) -> None:
    """Take all attention off the model, which then is as before `attach`; nothing happens to a model without attention."""
    for site in list(attached(model).values()):
        _remove(site)


def freeze_host(model: nn.Module) -> None:
    """Let only the attention learn, until requires_grad_ says otherwise, also after `detach`. Raises UsageError without attention.

    The host's batch norms are put in eval mode, so that their statistics stay too. `model.train()` wakes them: call this after it.
    """
    _check_attached(model)
    Held(model).hold(still=True)


def attention_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Iterate over the parameters of the attention, for an optimiser. Raises UsageError without attention."""
    _check_attached(model)
    return (parameter for name, parameter in model.named_parameters() if is_attention(name))


def host_state_dict(model: nn.Module) -> dict[str, Any]:
    """Return the state dict without the attention: what the plain host would give, to save or to load into one strictly."""
    attached(model)  # refuses a child of the host's own of that name, which would be lost
    state = model.state_dict()
    host = OrderedDict((name, value) for name, value in state.items() if not is_attention(name))
    metadata = getattr(state, "_metadata", {})
    host._metadata = {name: value for name, value in metadata.items() if not is_attention(name)}  # pyright: ignore[reportAttributeAccessIssue]
    return host


def load_host_state_dict(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a checkpoint of the plain host into an attached model just as the plain host would, strictly.

    The attention keeps its weights. Raises UsageError, with the model as it was, when the checkpoint is not the host's.
    """
    children = {site: getattr(site, CHILD) for site in attached(model).values()}
    try:
        for site in children:
            site._modules[CHILD] = None  # absent, yet in its place
        before = copy.deepcopy(model.state_dict())
        try:
            model.load_state_dict(state, strict=True)
        except Exception as error:
            model.load_state_dict(before, strict=True)
            reason = " ".join(str(error).split())
            raise UsageError(expected="a checkpoint of this very host", received=reason, do="load what host_state_dict gives") from error
    finally:
        for site, child in children.items():
            site._modules[CHILD] = child


def install(model: nn.Module, prepared: Prepared, *, inplace: bool = True) -> None:
    """Mutate the model as prepared; undo everything on any failure."""
    for attention in prepared.attentions.values():
        if isinstance(attention, Attention):
            attention.inplace = inplace
    sites = {name: model.get_submodule(name) for name in prepared.attentions}
    watched = [name for name, site in sites.items() if next(site.children(), None) is not None]
    try:
        for name, site in sites.items():
            site.add_module(CHILD, prepared.attentions[name])
            site.register_forward_hook(apply_attention)
        if watched:
            _check_calls(model, prepared, watched)
    except BaseException:
        for site in sites.values():
            _remove(site)
        raise


def _check_calls(model: nn.Module, prepared: Prepared, names: list[str]) -> None:
    """Run once more to see that no site runs its new child as one of its own. Raises UsageError."""
    runs: Counter[nn.Module] = Counter()
    handles = [prepared.attentions[name].register_forward_pre_hook(lambda module, _: runs.update([module])) for name in names]
    reason = "which runs it as one of its own children"
    calls: Counter[str] = Counter()
    try:
        calls.update(call.name for call in watch(model, prepared.trace.inputs).calls)
    except Exception as error:
        reason = f"which then fails with {type(error).__name__}: {error}"
    finally:
        for handle in handles:
            handle.remove()
    for name in names:
        if runs[prepared.attentions[name]] != calls[name] or not calls[name]:
            raise UsageError(
                expected="a site that leaves a new child alone",
                received=f"{name!r}, a {type(model.get_submodule(name)).__name__}, {reason}",
                do=f"choose a module inside it, such as where='{name}.*'",
            )


def _remove(site: nn.Module) -> None:
    site._modules.pop(CHILD, None)
    for key in [key for key, hook in site._forward_hooks.items() if hook is apply_attention]:
        del site._forward_hooks[key]


def _check_attached(model: nn.Module) -> None:
    if not attached(model):
        raise UsageError(expected="a model with attention", received="one without", do="attach(model, ...) first")
