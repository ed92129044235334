"""Every operation and part computes in Keras what plain torch computes, with its gradients."""

from typing import Any

import keras
import numpy as np
import pytest
import torch

from foveate.bind.keras.attention import attention
from foveate.bind.keras.layer_weights import load_state, state
from foveate.bind.keras.parts import KerasParts
from foveate.parts import Conv, Norm, Scale, Start, weights
from on_keras.steps import BACKEND, precision, step
from on_keras.test_golden import FORMATS, to_format, to_nchw
from vocabulary import CHANNELS, SHAPE, WORDS, Word, upstream, wanted


def close(got: Any, want: torch.Tensor) -> None:
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("start", ["paper", "identity"])
def test_weights_begin_as_the_part_says(start: Start) -> None:
    tested = {"conv": Conv(2, 2, zero=True), "norm": Norm(2, zero=True), "scale": Scale(2, True, True, 3.0, 0.5)}
    layers = KerasParts(start, "channels_last", "float32").make(tested)
    first = {name: [set(np.ravel(v).tolist()) for v in layer.trainable_weights] for name, layer in layers.items()}
    scale = [{3.0}, {0.5}] if start == "paper" else [{0.0}, {0.0}]
    assert first == {"conv": [{0.0}, {0.0}], "norm": [{0.0}, {0.0}], "scale": scale}


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("word", WORDS, ids=str)
def test_keras(word: Word, data_format: Any) -> None:
    part = word.tested.get("part")
    plain = isinstance(part, Conv) and (part.groups, part.stride, part.padding) == (1, 1, "same")
    if BACKEND == "tensorflow" and data_format == "channels_first" and plain:
        pytest.skip("TensorFlow's own convolution of maps (N, C, H, W) needs a GPU")
    generator = torch.Generator().manual_seed(1)
    shapes = weights(word.parts(CHANNELS))
    values = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    x, y, gx, gw = wanted(word, values)
    with precision("float64"):
        layer = attention(word, data_format=data_format, dtype="float64")
        layer.build(to_format(np.zeros(SHAPE), data_format).shape)
        constant = {name: value for name, value in state(layer).items() if name.endswith("constant")}
        load_state(layer, {**values, **constant})
        inputs, gy = to_format(x.numpy(), data_format), to_format(upstream(y).numpy(), data_format)
        got, of_inputs, of_weights = step(layer, [inputs], gy, False)
    close(to_nchw(got, data_format), y)
    close(to_nchw(of_inputs[0], data_format), gx)
    for name, value in of_weights.items():
        close(value, gw[name])


@pytest.mark.parametrize("part", [Conv(4, 4), Conv(4, 4, 3), Conv(4, 4, 3, groups=4)], ids=str)
def test_a_bias_belongs_to_a_channel_also_where_the_map_is_as_wide_as_it_has_channels(part: Conv) -> None:
    layer: Any = KerasParts("paper", "channels_first", "float32").make({"conv": part})["conv"]
    layer.bias.assign([0.0, 1.0, 2.0, 3.0])
    y: Any = keras.ops.convert_to_numpy(layer(keras.ops.zeros((1, 4, 4, 4))))
    np.testing.assert_array_equal(y[0], np.arange(4.0)[:, None, None] * np.ones((4, 4, 4)))
