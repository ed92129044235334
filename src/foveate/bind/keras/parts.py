"""The parts of `foveate.parts` as Keras layers, and access to them during a call."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
from keras import initializers, layers

from foveate import parts
from foveate.checks import check_names
from foveate.parts import Activation, GateKind, Start

ops: Any = keras.ops  # Any, because the declared return types include None
DataFormat = Literal["channels_last", "channels_first"]
PACKAGE = "foveate"  # the package name under which Keras saves the classes


def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent; XLA's own has single precision also in float64."""
    is_double = keras.backend.standardize_dtype(x.dtype) == "float64"
    return 1 - 2 / (ops.exp(2 * x) + 1) if is_double else ops.tanh(x)


ACTIVATIONS: Mapping[Activation, Callable[[Any], Any]] = {
    "sigmoid": ops.sigmoid,
    "hard_sigmoid": lambda x: ops.relu6(x + 3) / 6,
    "tanh": tanh,
    "linear": lambda x: x,
}


@keras.saving.register_keras_serializable(PACKAGE)
class Gate(layers.Layer):
    """x * scale * (offset + activation(logits)); scale 1 is the published gate, another one the identity start's."""

    def __init__(
        self,
        kind: GateKind,
        scale: float = 1.0,
        activation: Activation = "sigmoid",
        offset: float = 0.0,
        **common: Any,
    ):
        super().__init__(**common)
        self.kind, self.scale, self.offset = kind, scale, offset
        self.activation: Activation = activation

    def gate(self, logits: Any) -> Any:
        """Return the gate, for channels last (N, 1, 1, C), (N, H, W, 1), (N, H, 1, C), (N, 1, W, C) or (N, H, W, C)."""
        gate = ACTIVATIONS[self.activation](logits)
        gate = self.offset + gate if self.offset else gate
        return gate if self.scale == 1 else self.scale * gate

    def call(self, x: Any, logits: Any) -> Any:
        """Scale x, (N, H, W, C) or (N, C, H, W), by the gate of logits that broadcast against it."""
        return x * self.gate(logits)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"kind": self.kind, "scale": self.scale, "activation": self.activation, "offset": self.offset}
        return {**super().get_config(), **own}


class Factor(layers.Layer):
    """Multiply a map by weights of its channels, and add others if there is a bias."""

    def __init__(self, part: parts.Scale, zero: bool, data_format: DataFormat, **common: Any):
        super().__init__(**common)
        self.last = data_format == "channels_last"
        first, first_bias = (initializers.Constant(0.0 if zero else each) for each in (part.first, part.first_bias))
        self.kernel = self.add_weight(shape=(part.size,), initializer=first, name="weight")
        self.bias = self.add_weight(shape=(part.size,), initializer=first_bias, name="bias") if part.bias else None
        self.built = True

    def call(self, x: Any) -> Any:
        """Return x * weight + bias."""
        y = x * self._spread(self.kernel)
        return y if self.bias is None else y + self._spread(self.bias)

    def _spread(self, weight: Any) -> Any:
        return ops.reshape(weight, (-1,) if self.last else (-1, 1, 1))


class Fixed(layers.Layer):
    """Multiply a map by a constant (C, H, W)."""

    def __init__(self, part: parts.Constant, data_format: DataFormat, **common: Any):
        super().__init__(**common)
        self.last, values = data_format == "channels_last", np.asarray(part.values)
        self.constant = self.add_weight(
            shape=values.shape,
            initializer=lambda shape, dtype=None: ops.convert_to_tensor(values, dtype),
            trainable=False,
            name="constant",
        )
        self.built = True

    def call(self, x: Any) -> Any:
        """Return x * constant."""
        constant = ops.convert_to_tensor(self.constant)
        return x * (ops.transpose(constant, (1, 2, 0)) if self.last else constant)


class PlainNorm(layers.Layer):
    """Normalise over channels, groups or positions, in the precision of the map and at least float32."""

    def __init__(self, part: parts.Norm, zero: bool, data_format: DataFormat, **common: Any):
        super().__init__(**common)
        self.part, self.last = part, data_format == "channels_last"
        size, first = (part.channels,), "zeros" if zero else "ones"
        self.gamma = self.add_weight(shape=size, initializer=first, name="gamma")
        self.beta = self.add_weight(shape=size, initializer="zeros", name="beta")
        self.built = True

    def call(self, x: Any) -> Any:
        """Return the normalised map."""
        groups = {"layer": 1, "group": self.part.groups}.get(self.part.kind, self.part.channels)
        wide = ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16") else x
        n, *rest = ops.shape(wide)
        split = (*rest[:2], groups, -1) if self.last else (groups, -1, *rest[1:])
        z = ops.reshape(wide, (n, *split))
        inner = 4 if self.last else 2
        spatial = (1, 2) if self.last else (3, 4)
        axes = (inner,) if self.part.kind == "layer" else (*spatial, inner)
        count = ops.sum(ops.ones_like(z), axes, keepdims=True)
        z = z - ops.sum(z, axes, keepdims=True) / count
        z = z / ops.sqrt(ops.sum(z * z, axes, keepdims=True) / count + self.part.eps)
        shape = (-1,) if self.last else (-1, 1, 1)
        gamma, beta = (ops.cast(ops.reshape(each, shape), wide.dtype) for each in (self.gamma, self.beta))
        return ops.cast(ops.reshape(z, (n, *rest)) * gamma + beta, x.dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class BatchNorm(layers.BatchNormalization):
    """A batch norm in the precision of the map and at least float32.

    Keras's own takes float64 for float32 on JAX and torch, and on torch subtracts the square of the mean from the mean
    of the squares.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Return the normalised map; in training update the statistics."""
        x = ops.cast(inputs, "float32") if self.compute_dtype in ("float16", "bfloat16") else inputs
        moving_mean: Any = self.moving_mean
        moving_variance: Any = self.moving_variance
        shape = [-1 if axis == self.axis % 4 else 1 for axis in range(4)]
        mean, variance, gamma, beta = (
            ops.reshape(ops.cast(each, x.dtype), shape)
            for each in (moving_mean, moving_variance, self.gamma, self.beta)
        )
        if training and self.trainable:
            axes = [axis for axis in range(4) if axis != self.axis % 4]
            count = ops.sum(ops.ones_like(x), axes, keepdims=True)
            mean = ops.sum(x, axes, keepdims=True) / count
            variance = ops.sum(ops.square(x - mean), axes, keepdims=True) / count
            for held, now in ((moving_mean, mean), (moving_variance, variance)):
                held.assign(held * self.momentum + ops.cast(ops.reshape(now, (-1,)), held.dtype) * (1 - self.momentum))
        return ops.cast((x - mean) * (gamma / ops.sqrt(variance + self.epsilon)) + beta, inputs.dtype)


@keras.saving.register_keras_serializable(PACKAGE)
class Convolution(layers.Conv2D):
    """A convolution that adds its bias along the channels.

    On TensorFlow, Keras's own adds it along the width of a map (N, C, H, W) that is as wide as it has channels.
    """

    def call(self, inputs: Any) -> Any:
        """Convolve (N, H, W, C) or (N, C, H, W)."""
        if self.data_format == "channels_last" or self.bias is None:
            return super().call(inputs)
        return self.activation(self.convolution_op(inputs, self.kernel) + ops.reshape(self.bias, (-1, 1, 1)))


class Strided(Convolution):
    """A convolution with groups, or with zeros around the map before a stride, alike on every backend."""

    def __init__(self, *args: Any, pads: tuple[int, int], **options: Any):
        super().__init__(*args, padding="valid", **options)
        self.pads = pads

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Convolve (N, H, W, C) or (N, C, H, W) with a kernel (kh, kw, C / groups, D)."""
        last = self.data_format == "channels_last"
        maps = inputs if last else ops.transpose(inputs, (0, 2, 3, 1))
        maps = ops.pad(maps, [(0, 0), *((pad, pad) for pad in self.pads), (0, 0)])
        shares = zip(ops.split(maps, self.groups, -1), ops.split(kernel, self.groups, -1), strict=True)
        common = {"padding": "valid", "dilation_rate": self.dilation_rate, "data_format": "channels_last"}
        if kernel.shape[2] == 1 and self.groups == self.filters:
            flipped = ops.transpose(kernel, (0, 1, 3, 2))
            y = ops.depthwise_conv(maps, flipped, strides=self.strides, **common)
        else:
            y = ops.concatenate([ops.conv(*share, strides=self.strides, **common) for share in shares], -1)
        return y if last else ops.transpose(y, (0, 3, 1, 2))


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
class Pointwise(Convolution):
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
        self.start, self.dtype = start, dtype
        self.data_format: DataFormat = data_format

    def add(self, holder: layers.Layer, parts: parts.Parts, prefix: str = "") -> None:
        """Set the layer of every part as an attribute of `holder` under the part's name. Raises UsageError."""
        check_names(parts, holder)
        for name, layer in self.make(parts, prefix).items():
            setattr(holder, name, layer)

    def conv(self, part: parts.Conv, path: str) -> layers.Layer:
        size, fan_in = part.size, part.inputs // part.groups * math.prod(part.size)
        common = {"data_format": self.data_format, **self._convolution(part, fan_in, path)}
        if (part.groups, part.stride, part.padding) == (1, 1, "same"):
            kind = Pointwise if size == (1, 1) else Convolution
            layer = kind(part.outputs, size, padding="same", dilation_rate=part.dilation, **common)
        else:
            more = {"groups": part.groups, "dilation_rate": part.dilation, "strides": part.stride}
            layer = Strided(part.outputs, size, pads=part.pads, **more, **common)
        return self._built(layer, part.inputs)

    def channel_conv(self, part: parts.ChannelConv, path: str) -> layers.Layer:
        common = self._convolution(part, part.kernel, path)
        layer = layers.Conv1D(1, part.kernel, padding="same", data_format="channels_last", **common)
        layer.build((None, None, 1))
        return layer

    def norm(self, part: parts.Norm, path: str) -> layers.Layer:
        if part.kind != "batch":
            return PlainNorm(part, self.is_zero(part), self.data_format, **self._common(path))
        layer = BatchNorm(
            axis=-1 if self.data_format == "channels_last" else 1,
            momentum=1 - part.momentum,
            epsilon=part.eps,
            gamma_initializer="zeros" if self.is_zero(part) else "ones",
            **self._common(path),
        )
        return self._built(layer, part.channels)

    def scale(self, part: parts.Scale, path: str) -> layers.Layer:
        return Factor(part, self.is_zero(part), self.data_format, **self._common(path))

    def constant(self, part: parts.Constant, path: str) -> layers.Layer:
        return Fixed(part, self.data_format, **self._common(path))

    def gate(self, part: parts.Gate, path: str) -> layers.Layer:
        return Gate(part.kind, part.scale(self.start), part.activation, part.offset, **self._common(path))

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
