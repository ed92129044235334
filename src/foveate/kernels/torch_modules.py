"""Read kernel arguments from the modules of the torch binding, and refuse modules that were changed."""

from typing import Any, TypeVar

from torch import Tensor, nn

from foveate.kernels.table import Unfit, Weights
from foveate.kernels.watched import HOOKS, Watched

Class = TypeVar("Class", bound=type[nn.Module])

_own: dict[str, type[nn.Module]] = {}


def computes(own: Class) -> Class:
    """Mark a class of the binding as one that the kernels compute: `Gate` or `Scale`."""
    _own[own.__name__] = own
    return own


def is_hooked(layer: nn.Module) -> bool:
    """Return whether a layer has hooks or a replaced `forward`."""
    state = layer.__dict__
    return any(map(state.get, HOOKS)) or "forward" in state


class TorchReader:
    """A `table.Reader` of torch modules, which may watch what it reads."""

    def __init__(self, watched: Watched | None = None):
        self._watched = watched

    def parts(self, holder: nn.Module) -> dict[str, Any]:
        """Return the children."""
        parts = holder._modules
        if self._watched is not None:
            self._watched.children(parts)
        return parts

    def convolution(self, layer: nn.Module, kernel: int | None = None) -> Weights:
        """Read a Conv2d."""
        state = self._plain(layer, nn.Conv2d)
        size = state["kernel_size"][0] if kernel is None else kernel
        if _settings(state) != ((size, size), (1, 1), (size // 2, size // 2), (1, 1), 1, "zeros"):
            raise Unfit(f"a convolution was changed: {layer}")
        return _weights(state)

    def channel_convolution(self, layer: nn.Module) -> Weights:
        """Read a Conv1d."""
        state = self._plain(layer, nn.Conv1d)
        (size,) = state["kernel_size"]
        if _settings(state) != ((size,), (1,), (size // 2,), (1,), 1, "zeros"):
            raise Unfit(f"a convolution was changed: {layer}")
        return _weights(state)

    def stacked_convolution(self, layer: nn.Module) -> Tensor:
        """Read a Conv2d."""
        state = self._plain(layer, nn.Conv2d)
        weight, bias = _weights(state)
        if _settings(state) != ((2, 1), (1, 1), (0, 0), (1, 1), weight.shape[0], "zeros") or bias is not None:
            raise Unfit(f"a convolution was changed: {layer}")
        return weight

    def factor(self, layer: nn.Module) -> Weights:
        """Read a `Scale`."""
        return _weights(self._plain(layer, _own["Scale"]))

    def norm(self, layer: nn.Module) -> tuple[Any, ...]:
        """Read a BatchNorm2d."""
        state = self._plain(layer, nn.BatchNorm2d)
        parameters, buffers = state["_parameters"], state["_buffers"]
        weight, bias, mean, var = (
            parameters.get("weight"),
            parameters.get("bias"),
            buffers["running_mean"],
            buffers["running_var"],
        )
        if weight is None or bias is None:
            raise Unfit("a batch norm without weights")
        if state["training"] or mean is None:
            return weight, bias, None, None, state["eps"], True
        return weight, bias, mean, var, state["eps"], False

    def scale(self, gate: nn.Module) -> float:
        """Read a gate."""
        return self._plain(gate, _own["Gate"])["scale"]

    def update_statistics(self, norm: nn.BatchNorm2d, statistics: Tensor, count: int) -> None:
        """Update the running statistics as the norm's own forward does."""
        if not (norm.training and norm.track_running_stats) or norm.running_mean is None or norm.running_var is None:
            return
        momentum = norm.momentum or 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:
                momentum = 1.0 / float(norm.num_batches_tracked)
        for running, value in zip((norm.running_mean, norm.running_var), statistics.unbind(), strict=True):
            running.lerp_(value.to(running.dtype), momentum)

    def _plain(self, layer: nn.Module, kind: type[nn.Module]) -> dict[str, Any]:
        """Return the attributes of a layer of exactly this class and without hooks.

        Raises Unfit for any other layer.
        """
        state = layer.__dict__
        if type(layer) is not kind:
            raise Unfit(f"a {type(layer).__name__} instead of a {kind.__name__}")
        if is_hooked(layer):
            raise Unfit(f"hooks on a {type(layer).__name__}")
        if self._watched is not None:
            self._watched.layer(layer)
        return state


TORCH = TorchReader()


def _settings(state: dict[str, Any]) -> tuple[Any, ...]:
    return (
        state["kernel_size"],
        state["stride"],
        state["padding"],
        state["dilation"],
        state["groups"],
        state["padding_mode"],
    )


def _weights(state: dict[str, Any]) -> Weights:
    weight = state["_parameters"].get("weight")
    if weight is None or state.get("bias") is not None:
        raise Unfit("weights that are not parameters")
    return weight, state["_parameters"].get("bias")
