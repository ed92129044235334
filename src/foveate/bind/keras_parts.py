"""Layers for the parts that Keras has no layer for, and access to the parts during a call."""

from functools import partial
from typing import Any, Literal

import keras
from keras import layers

from foveate import spec
from foveate.spec import Start

ops: Any = keras.ops  # Any, because the declared return types include None
DataFormat = Literal["channels_last", "channels_first"]
PACKAGE = "foveate"  # the package name under which Keras saves the classes


@keras.saving.register_keras_serializable(PACKAGE)
class Gate(layers.Layer):
    """x * scale * sigmoid(logits): scale 1 is the published gate; scale 2 makes the gate 1 where the logits are 0."""

    def __init__(self, kind: spec.GateKind, scale: float = 1.0, **common: Any):
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


class Parts(layers.Layer):
    """The parts of a mechanism inside another one, by name."""

    def call(self, x: Any) -> Any:
        """Return x: a holder of layers computes nothing."""
        return x


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
        if isinstance(part, Parts):
            return Called(part, self.training)
        return partial(part, training=self.training) if isinstance(part, layers.BatchNormalization) else part
