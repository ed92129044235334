"""Separate the host from its attention: freeze the host, and save and load its state dict."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from foveate.errors import UsageError
from foveate.surgery.torch import attachment
from foveate.surgery.torch.child import attached, is_baked
from foveate.surgery.torch.replaced import replaced_put_back
from foveate.torch_utils.modes import Freezable, stay_in_eval
from foveate.torch_utils.names import FOR_INFERENCE, attached_name, child_of, is_attention


def freeze_host(model: nn.Module) -> None:
    """Freeze all parameters and batch norms of the host, so that only the attention trains.

    The parameters stay frozen, also after `detach`, until `requires_grad_` unfreezes them. The host's batch norms stay
    in eval mode, so that their statistics do not change: `model.train()` has no effect on a norm whose weights are
    frozen. Raises UsageError without attention.
    """
    _check_attached(model)
    with replaced_put_back(model):  # so that modules that attention replaced are frozen too, should they come back
        Freezable(model).set_frozen(True)
        stay_in_eval(model)
    attachment.remember_host(model)


def attention_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Iterate over the parameters of the attention, for an optimiser. Raises UsageError without attention."""
    _check_attached(model)
    return (parameter for name, parameter in model.named_parameters() if is_attention(name))


def host_state_dict(model: nn.Module) -> dict[str, Any]:
    """Return the state dict without the attention, the same as the plain host's, to save or to load strictly."""
    if not is_baked(model):
        attached(model)  # raises for a host's own child of that name, whose weights would be lost
    with replaced_put_back(model):
        return _renamed(model.state_dict(), lambda name: not is_attention(name))


def attached_state_dict(model: nn.Module) -> dict[str, Any]:
    """Return the state dict of a baked model under the names of the attached one, which loads it strictly.

    Raises UsageError for a model that was baked for inference, whose norms are gone.
    """
    if FOR_INFERENCE in vars(model):
        raise UsageError(
            expected="a model of bake(model)",
            received="one of bake(model, inference=True), whose norms are folded",
            do="take the weights of the attached model, or bake it without inference",
        )
    return _renamed(model.state_dict(), lambda name: True)


def load_host_state_dict(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a checkpoint of the plain host into a model with attention, strictly, as the plain host would.

    The attention keeps its weights. Raises UsageError when the checkpoint does not fit the host; the model is then
    unchanged.
    """
    children = list(attached(model).values())
    try:
        for held in children:
            held.module._modules[child_of(held.argument)] = None  # absent, but keeps its position among the children
        with replaced_put_back(model):
            _load(model, state)
    finally:
        for held in children:
            held.module._modules[child_of(held.argument)] = held.attention
    attachment.remember_host(model)


def _load(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a state dict strictly. Raises UsageError where it does not fit; the model is then unchanged."""
    before = copy.deepcopy(model.state_dict())
    try:
        model.load_state_dict(state, strict=True)
    except Exception as error:
        model.load_state_dict(before, strict=True)
        reason = " ".join(str(error).split())
        raise UsageError(
            expected="a checkpoint of this host", received=reason, do="load a state dict of host_state_dict"
        ) from error


def _renamed(state: dict[str, Any], keep: Callable[[str], bool]) -> dict[str, Any]:
    """Return the kept entries of a state dict, and of its metadata, under the names of the attached model."""
    renamed: Any = OrderedDict((attached_name(name), value) for name, value in state.items() if keep(name))
    metadata = getattr(state, "_metadata", {})
    renamed._metadata = {attached_name(name): value for name, value in metadata.items() if keep(name)}
    return renamed


def _check_attached(model: nn.Module) -> None:
    if not is_baked(model) and not attached(model):
        raise UsageError(expected="a model with attention", received="a model without", do="attach(model, ...) first")
