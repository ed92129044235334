"""Run Foveate's kernels for Keras layers on the torch backend, reading the weights of Keras layers."""

from typing import Any

import keras
from keras import layers
from torch import Tensor

from foveate.bind.keras.parts import BatchNorm, Called, Convolution, DataFormat, Factor, Gate, Pointwise, Strided
from foveate.bind.weight_layouts import TO_TORCH
from foveate.kernels import dispatch
from foveate.kernels.table import Unfit, Weights
from foveate.kernels.torch_modules import is_hooked
from foveate.spec import Mechanism

ops: Any = keras.ops  # Any, because the declared return types include None


def run(mechanism: Mechanism, p: Called, x: Any, data_format: DataFormat) -> Any:
    """Compute the mechanism on maps of that format with a kernel; return None where no kernel can run."""
    if not isinstance(x, Tensor) or x.is_meta:  # Keras infers shapes by calls on meta tensors
        return None
    y = dispatch.run(mechanism, p.holder, _as_nchw(x, data_format), read=KerasReader(x, p.training))
    return y if y is None or data_format == "channels_first" else y.permute(0, 2, 3, 1)


def why_not(layer: Any, x: Any, training: bool) -> str | None:
    """Return why a built layer would run as plain operations on maps of its format, None where a kernel would run."""
    x = ops.convert_to_tensor(x, dtype=layer.compute_dtype)
    return dispatch.why_not(layer.mechanism, layer, _as_nchw(x, layer.data_format), KerasReader(x, training))


class KerasReader:
    """A `table.Reader` of Keras layers on torch, for one call on maps x."""

    def __init__(self, x: Tensor, training: bool):
        self.training = training
        self.dtype = keras.backend.standardize_dtype(x.dtype)

    def parts(self, holder: Any) -> "_Attributes":
        """Return the layers that a holder has as attributes."""
        return _Attributes(holder)

    def convolution(self, layer: Any, kernel: int | None = None) -> Weights:
        """Read a Conv2D."""
        self._check(layer, layers.Conv2D, Convolution, Pointwise)
        size = layer.kernel_size[0] if kernel is None else kernel
        _check_settings(layer, ((size, size), (1, 1), (1, 1), "same", 1))
        return self._weights(layer)

    def channel_convolution(self, layer: Any) -> Weights:
        """Read a Conv1D."""
        self._check(layer, layers.Conv1D)
        _check_settings(layer, (layer.kernel_size, (1,), (1,), "same", 1))
        return self._weights(layer)

    def stacked_convolution(self, layer: Any) -> Tensor:
        """Read a Conv2D."""
        self._check(layer, Strided)
        weight, bias = self._weights(layer)
        _check_settings(layer, ((2, 1), (1, 1), (1, 1), "valid", weight.shape[0]))
        if bias is not None or layer.pads != (0, 0):
            raise Unfit(f"a convolution was changed: {layer}")
        return weight

    def factor(self, layer: Any) -> Weights:
        """Read a `Scale`."""
        self._check(layer, Factor)
        return ops.cast(layer.kernel.value, self.dtype), None if layer.bias is None else ops.cast(
            layer.bias.value, self.dtype
        )

    def norm(self, layer: Any) -> tuple[Any, ...]:
        """Read a batch norm."""
        self._check(layer, layers.BatchNormalization, BatchNorm)
        if not (layer.scale and layer.center) or layer.synchronized or getattr(layer, "renorm", False):
            raise Unfit(f"a batch norm was changed: {layer}")
        weights = layer.gamma.value, layer.beta.value
        if self.training and layer.trainable:
            return *weights, None, None, layer.epsilon, True
        return *weights, layer.moving_mean.value, layer.moving_variance.value, layer.epsilon, False

    def scale(self, gate: Any) -> float:
        """Read a gate."""
        self._check(gate, Gate)
        return gate.scale

    def update_statistics(self, norm: Any, statistics: Tensor, count: int) -> None:
        """Update the running statistics as the norm's own call does, with the biased variance."""
        mean, variance = statistics.unbind()
        for running, value in ((norm.moving_mean, mean), (norm.moving_variance, variance * ((count - 1) / count))):
            running.assign(running.value * norm.momentum + value * (1 - norm.momentum))

    def _weights(self, layer: Any) -> Weights:
        kernel, bias = layer.kernel.value, layer.bias.value if layer.use_bias else None
        # Inside a call, Keras has already cast the weights.
        return ops.cast(kernel.permute(TO_TORCH[kernel.ndim]), self.dtype), None if bias is None else ops.cast(
            bias, self.dtype
        )

    def _check(self, layer: Any, kind: type[layers.Layer], *kinds: type[layers.Layer]) -> None:
        """Raise Unfit for a layer of another class (subclasses included), with hooks, or with a replaced `call`."""
        if type(layer) not in (kind, *kinds):
            raise Unfit(f"a {type(layer).__name__} instead of a {kind.__name__}")
        if is_hooked(layer) or "call" in vars(layer):
            raise Unfit(f"hooks on a {kind.__name__}")
        if (
            layer.activity_regularizer is not None
            or layer.quantization_mode is not None
            or layer.compute_dtype != self.dtype
        ):
            raise Unfit(f"a {kind.__name__} was changed: {layer}")


class _Attributes(dict[str, Any]):
    """The layers of a holder by name, read on first access."""

    def __init__(self, holder: Any):
        super().__init__()
        self.holder = holder

    def __missing__(self, name: str) -> Any:
        layer = self.get(name)
        if layer is None:
            raise Unfit(f"there is no {name!r} in a {type(self.holder).__name__}")
        return layer

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self.holder, name, default)


def _check_settings(layer: Any, wanted: tuple[Any, ...]) -> None:
    found = layer.kernel_size, layer.strides, layer.dilation_rate, layer.padding, layer.groups
    odd = layer.padding == "valid" or all(size % 2 for size in layer.kernel_size)  # else it is padded unequally
    if found != wanted or not odd or layer.activation is not keras.activations.linear or layer.lora_enabled:
        raise Unfit(f"a convolution was changed: {layer}")


def _as_nchw(x: Tensor, data_format: DataFormat) -> Tensor:
    return x if data_format == "channels_first" else x.permute(0, 3, 1, 2)
