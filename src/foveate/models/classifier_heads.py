"""The output layers: they are reset for other classes and stay trainable in a frozen host."""

import logging

from torch import nn

from foveate.errors import UsageError
from foveate.torch_utils.modes import Freezable
from foveate.torch_utils.names import is_attention

logger = logging.getLogger("foveate")


def heads_of(model: nn.Module, classes: int) -> tuple[str, ...]:
    """Return the names of a detector's heads, or of a classifier's last layer with one output per class, or ()."""
    own = getattr(model, "head_layers", None)
    if own is not None:
        return tuple(own)
    hosts = [(name, module) for name, module in model.named_modules() if not is_attention(name)]
    layers = [(name, module) for name, module in hosts if isinstance(module, (nn.Linear, nn.Conv2d))]
    outputs = [
        (name, layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels) for name, layer in layers
    ]
    return tuple([name for name, count in outputs if count == classes][-1:])


def all_but_heads(model: nn.Module, classes: int) -> Freezable:
    """Return the host without its heads, to freeze it; the heads are logged.

    Raises UsageError if no head is found, as then nothing might learn.
    """
    heads = heads_of(model, classes)
    if not heads:
        raise UsageError(
            expected=f"a last layer with one output for each of the {classes} classes, to train on a frozen host",
            received=f"a {type(model).__name__} without such a layer (nn.Linear or nn.Conv2d)",
            do="leave --freeze and --freeze-epochs out",
        )
    logger.info("the host is frozen except its output layer%s %s", "s" * (len(heads) > 1), " and ".join(heads))
    return Freezable(model, but=heads)
