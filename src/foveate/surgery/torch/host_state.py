"""The host and its attention apart: which of the two learns, and which of the two a state dict is of."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from foveate.errors import UsageError
from foveate.surgery.torch.child import attached
from foveate.torch_utils.modes import Freezable
from foveate.torch_utils.names import CHILD, is_attention


def freeze_host(model: nn.Module) -> None:
    """Let only the attention learn, until requires_grad_ says otherwise, also after `detach`. Raises UsageError without attention.

    The host's batch norms are put in eval mode, so that their statistics stay too. `model.train()` wakes them: call
    this after it.
    """
    _check_attached(model)
    Freezable(model).set_frozen(True)


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
            raise UsageError(
                expected="a checkpoint of this very host", received=reason, do="load what host_state_dict gives"
            ) from error
    finally:
        for site, child in children.items():
            site._modules[CHILD] = child


def _check_attached(model: nn.Module) -> None:
    if not attached(model):
        raise UsageError(expected="a model with attention", received="one without", do="attach(model, ...) first")
