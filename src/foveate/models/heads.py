"""The output layers: they are reset for other classes and stay trainable when the rest is frozen."""

import logging

from torch import nn

from foveate.errors import UsageError
from foveate.torch_utils.modes import Held
from foveate.torch_utils.names import is_attention

logger = logging.getLogger("foveate")


def heads_of(model: nn.Module, classes: int) -> tuple[str, ...]:
    """Return the names of a detector's heads, or of a classifier's last layer with one output a class; () where there is none."""
    own = getattr(model, "head_layers", None)
    if own is not None:
        return tuple(own)
    hosts = [(name, module) for name, module in model.named_modules() if not is_attention(name)]
    layers = [(name, module) for name, module in hosts if isinstance(module, (nn.Linear, nn.Conv2d))]
    outputs = [
        (name, layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels) for name, layer in layers
    ]
    return tuple([name for name, count in outputs if count == classes][-1:])


def all_but_heads(model: nn.Module, classes: int) -> Held:
    """Return the host without its heads, to hold it still; the heads are logged.

    Raises UsageError where no head is found, as nothing might learn then.
    """
    heads = heads_of(model, classes)
    if not heads:
        raise UsageError(
            expected=f"a last layer with one output for each of the {classes} classes, to learn beside a frozen host",
            received=f"a {type(model).__name__} without one (nn.Linear or nn.Conv2d)",
            do="leave --freeze and --freeze-epochs out",
        )
    logger.info("the host is frozen but for its output layer%s %s", "s" * (len(heads) > 1), " and ".join(heads))
    return Held(model, but=heads)
