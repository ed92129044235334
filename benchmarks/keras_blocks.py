"""Hand-written attention in Keras: functional blocks, channels last, with the equations of Foveate's defaults.

The layers with weights have the names of the mechanisms' parts, so that `share_weights` finds them.
"""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

ops: Any = keras.ops  # Any, because the declared return types include None


def se(x: Any) -> Any:
    """Squeeze-and-Excitation."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Reshape((1, 1, channels))(gate)
    gate = layers.Dense(channels // 16, activation="relu", name="reduce")(gate)
    gate = layers.Dense(channels, activation="sigmoid", name="expand")(gate)
    return layers.Multiply()([x, gate])


def eca(x: Any) -> Any:
    """Efficient channel attention."""
    channels = x.shape[-1]
    gate = layers.GlobalAveragePooling2D()(x)
    gate = layers.Reshape((channels, 1))(gate)
    gate = layers.Conv1D(1, eca_kernel(channels), padding="same", use_bias=False, activation="sigmoid", name="conv")(
        gate
    )
    gate = layers.Reshape((1, 1, channels))(gate)
    return layers.Multiply()([x, gate])


def eca_kernel(channels: int) -> int:
    """Return the paper's kernel size for that many channels."""
    size = int(abs((math.log2(channels) + 1) / 2))
    return size if size % 2 else size + 1


def channel(x: Any) -> Any:
    """The channel half of CBAM."""
    channels = x.shape[-1]
    reduce = layers.Dense(channels // 16, activation="relu", name="reduce")
    expand = layers.Dense(channels, name="expand")
    mean = layers.Reshape((1, 1, channels))(layers.GlobalAveragePooling2D()(x))
    most = layers.Reshape((1, 1, channels))(layers.GlobalMaxPooling2D()(x))
    gate = layers.Add()([expand(reduce(mean)), expand(reduce(most))])
    return layers.Multiply()([x, layers.Activation("sigmoid")(gate)])


def spatial(x: Any) -> Any:
    """The spatial half of CBAM."""
    mean = layers.Lambda(lambda t: ops.mean(t, axis=-1, keepdims=True))(x)
    most = layers.Lambda(lambda t: ops.max(t, axis=-1, keepdims=True))(x)
    gate = layers.Concatenate()([most, mean])
    gate = layers.Conv2D(1, 7, padding="same", use_bias=False, name="conv")(gate)
    gate = layers.BatchNormalization(momentum=0.99, epsilon=1e-5, name="norm")(gate)
    return layers.Multiply()([x, layers.Activation("sigmoid")(gate)])


def cbam(x: Any) -> Any:
    """CBAM."""
    return spatial(channel(x))


def coordinate(x: Any) -> Any:
    """Coordinate attention."""
    _, height, _, channels = x.shape
    rows = layers.Lambda(lambda t: ops.mean(t, axis=2, keepdims=True))(x)
    columns = layers.Lambda(lambda t: ops.mean(t, axis=1, keepdims=True))(x)
    joined = layers.Concatenate(axis=1)([rows, layers.Permute((2, 1, 3))(columns)])
    joined = layers.Conv2D(max(8, channels // 32), 1, name="squeeze")(joined)
    joined = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="norm")(joined)
    joined = layers.Activation("hard_silu")(joined)
    rows, columns = layers.Lambda(lambda t: ops.split(t, [height], axis=1))(joined)
    rows = layers.Conv2D(channels, 1, activation="sigmoid", name="row")(rows)
    columns = layers.Conv2D(channels, 1, activation="sigmoid", name="column")(layers.Permute((2, 1, 3))(columns))
    return layers.Multiply()([x, columns, rows])


def cross(x: Any) -> Any:
    """Self-attention over the positions of the map, and a residual."""
    _, height, width, channels = x.shape
    flat = layers.Reshape((height * width, channels))(x)
    queries, keys, values = (layers.Dense(channels, name=name)(flat) for name in ("query", "key", "value"))
    energy = layers.Lambda(lambda t: t * channels**-0.5)(layers.Dot(axes=(2, 2))([queries, keys]))
    mixed = layers.Dot(axes=(2, 1))([layers.Softmax()(energy), values])
    return layers.Add()([x, layers.Reshape((height, width, channels))(mixed)])


BLOCKS: dict[str, Callable[[Any], Any]] = {
    "se": se, "eca": eca, "channel": channel, "spatial": spatial,
    "cbam": cbam, "coordinate": coordinate, "cross": cross,
}  # fmt: skip


def share_weights(layer: Any, block: Any) -> None:
    """Copy the weights of a layer to the block that it is compared with."""
    weights = {_place(weight): weight for weight in layer.weights}
    for weight in block.weights:
        weight.assign(ops.reshape(weights[_place(weight)], weight.shape))


def _place(weight: Any) -> str:
    """Return the last two names of a weight's path, such as "reduce/kernel"."""
    return "/".join(weight.path.split("/")[-2:])
