"""The parts of `foveate.parts` as Keras layers, and access to them during a call."""

from functools import partial
from typing import Any, Literal

import keras
from keras import initializers, layers

from foveate import parts
from foveate.parts import GateKind, Start

ops: Any = keras.ops  # Any, because the declared return types include None
DataFormat = Literal["channels_last", "channels_first"]
PACKAGE = "foveate"  # the package name under which Keras saves the classes


@keras.saving.register_keras_serializable(PACKAGE)
class Gate(layers.Layer):
    """x * scale * sigmoid(logits): scale 1 is the published gate; scale 2 makes the gate 1 where the logits are 0."""

    def __init__(self, kind: GateKind, scale: float = 1.0, **common: Any):
        super().__init__(**common)
        self.kind, self.scale = kind, scale

    def gate(self, logits: Any) -> Any:
        """Return the gate; for channels last (N, 1, 1, C), (N, H, W, 1), (N, H, 1, C) or (N, 1, W, C), by `kind`."""
        gate = ops.sigmoid(logits)
        return gate if self.scale == 1 else self.scale * gate

    def call(self, x: Any, logits: Any) -> Any:
        """Scale x, (N, H, W, C) or (N, C, H, W), by the gate of logits that broadcast against it."""
        return x * self.gate(logits)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "kind": self.kind, "scale": self.scale}


@keras.saving.register_keras_serializable(PACKAGE)
class Replace(layers.Layer):
    """Replace x by y. With the identity start return x + y, where y is 0 before training."""

    def __init__(self, start: Start = "paper", **common: Any):
        super().__init__(**common)
        self.start: Start = start

    def call(self, x: Any, y: Any) -> Any:
        """Return y, or x + y, both (N, H, W, C) or (N, C, H, W)."""
        return y if self.start == "paper" else x + y

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**super().get_config(), "start": self.start}


@keras.saving.register_keras_serializable(PACKAGE)
class Pointwise(layers.Conv2D):
    """A 1x1 convolution as a matrix product: on pooled maps the framework's convolution takes up to twice as long."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Multiply every position by the kernel (1, 1, C, D): (N, H, W, C) -> (N, H, W, D), or channels first."""
        last, pooled = self.data_format == "channels_last", tuple(inputs.shape[2:]) == (1, 1)
        if not last and not pooled:
            return super().convolution_op(inputs, kernel)
        _, _, ours, theirs = kernel.shape
        product = ops.reshape(inputs, (-1, ours)) @ ops.reshape(
            kernel, (ours, theirs)
        )  # ops.matmul converts float64 to float32
        shape = ops.shape(inputs)
        return ops.reshape(product, (*shape[:3], theirs) if last else (shape[0], theirs, 1, 1))


class Holder(layers.Layer):
    """The parts of a mechanism inside another one, by name."""

    def call(self, x: Any) -> Any:
        """Return x: a holder of layers computes nothing."""
        return x


class KerasParts(parts.Maker[layers.Layer]):
    """Make the built layers of parts for maps of a data format."""

    def __init__(self, start: Start, data_format: DataFormat, dtype: Any):
        self.start, self.data_format, self.dtype = start, data_format, dtype

    def add(self, holder: layers.Layer, parts: parts.Parts, prefix: str = "") -> None:
        """Set the layer of every part as an attribute of `holder` under the part's name."""
        for name, layer in self.make(parts, prefix).items():
            setattr(holder, name, layer)

    def conv(self, part: parts.Conv, path: str) -> layers.Layer:
        kind = Pointwise if part.kernel == 1 else layers.Conv2D
        common = self._convolution(part, part.inputs * part.kernel**2, path)
        layer = kind(part.outputs, part.kernel, padding="same", data_format=self.data_format, **common)
        return self._built(layer, part.inputs)

    def channel_conv(self, part: parts.ChannelConv, path: str) -> layers.Layer:
        common = self._convolution(part, part.kernel, path)
        layer = layers.Conv1D(1, part.kernel, padding="same", data_format="channels_last", **common)
        layer.build((None, None, 1))
        return layer

    def norm(self, part: parts.Norm, path: str) -> layers.Layer:
        layer = layers.BatchNormalization(
            axis=-1 if self.data_format == "channels_last" else 1,
            momentum=1 - part.momentum,
            epsilon=part.eps,
            gamma_initializer="zeros" if self.is_zero(part) else "ones",
            **self._common(path),
        )
        return self._built(layer, part.channels)

    def gate(self, part: parts.Gate, path: str) -> layers.Layer:
        return Gate(part.kind, part.scale(self.start), **self._common(path))

    def replace(self, part: parts.Replace, path: str) -> layers.Layer:
        return Replace(self.start, **self._common(path))

    def group(self, parts: parts.Parts, path: str) -> layers.Layer:
        holder = Holder(**self._common(path))
        with keras.name_scope(holder.name, caller=holder):
            self.add(holder, parts, f"{path}.")
        holder.built = True
        return holder

    def _common(self, path: str) -> dict[str, Any]:
        return {"name": path.rpartition(".")[2], "dtype": self.dtype}

    def _convolution(self, part: parts.Conv | parts.ChannelConv, fan_in: int, path: str) -> dict[str, Any]:
        """Return the options of a convolution, whose first weights are 0 or as torch's, within 1 / sqrt(fan_in)."""
        limit = fan_in**-0.5
        kernel, bias = ("zeros" if self.is_zero(part) else initializers.RandomUniform(-limit, limit) for _ in range(2))
        first = {"kernel_initializer": kernel, "bias_initializer": bias}
        return {"use_bias": part.bias, **first, **self._common(path)}

    def _built(self, layer: layers.Layer, channels: int) -> layers.Layer:
        layer.build(
            (None, None, None, channels) if self.data_format == "channels_last" else (None, channels, None, None)
        )
        return layer


class Called:
    """The parts for one call; passes its `training` to the norms.

    Keras passes `training` to inner layers only when Keras itself makes the outer call. `stateless_call` on JAX, for
    example, does not go through it.
    """

    def __init__(self, holder: Any, training: bool):
        self.holder, self.training = holder, training

    def __getattr__(self, name: str) -> Any:
        """Return a part, by the name it has in the definition."""
        part = getattr(self.holder, name)
        if isinstance(part, Holder):
            return Called(part, self.training)
        return partial(part, training=self.training) if isinstance(part, layers.BatchNormalization) else part
