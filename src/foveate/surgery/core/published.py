"""Load published weights into one mechanism, or those of a whole network into a host with attention attached."""

from collections.abc import Mapping
from typing import Any

from foveate.bind import states
from foveate.bind.published import published_weights
from foveate.errors import UsageError
from foveate.surgery.core.transfer import is_torch


def load_published(
    target: Any, state_dict: Mapping[str, Any], *, layout: str | None = None, sites: Mapping[str, str] | None = None
) -> str:
    """Load published weights into a mechanism of torch or Keras, or into a PyTorch model; return their layout's name.

    Knows the authors' code, timm, torchvision, mmpretrain, the listings and Foveate's own names. Prefixes and missing
    `num_batches_tracked` are ignored. Linear weights fit 1x1 convolutions. Attention must have `start="paper"`, because
    published weights were trained with it.

    Args:
        target: a mechanism, or a model with attention attached where the published network has it.
        state_dict: a state dict, for a model also a checkpoint with one inside. For a mechanism also Keras weights by
            layer, {"conv": layer.get_weights()}, or by variable, {weight.path: weight}. For a model it has the weights
            of the host too, under the host's names. Where its attention has another reduction or kernel size, the
            model gets new modules of that size: load before you make an optimiser.
        layout: the name of the layout, where several fit.
        sites: for a model, {their name of attention: our site}, where the names do not show the site.

    Raises:
        UsageError: the layout is unknown, a name, a shape or an option does not fit, or attention has the identity
            start. The target is then unchanged.
    """
    if states.is_bound(target):
        weights, name = published_weights(target, state_dict, layout)
        states.write(target, weights)
        return name
    if is_torch(target):
        from foveate.surgery.torch.published_network import load_network

        return load_network(target, state_dict, layout, sites or {})
    raise UsageError(
        expected="a module made by foveate.attention, or a PyTorch model with attention attached",
        received=type(target).__name__,
        do='pass foveate.attention("cbam", channels); for a Keras model load the host with Keras, and each layer of '
        "attention by itself",
    )
