"""The Keras backend has every operation and part, and gives the weights of a part the names and shapes of torch."""

import inspect

import pytest

from foveate.bind.keras.attention import attention
from foveate.bind.keras.layer_weights import state
from foveate.bind.keras.ops import KerasOps
from foveate.bind.keras.parts import KerasParts
from foveate.mechanisms import names
from foveate.parts import weights
from subjects import Subject


def test_the_backend_lacks_nothing() -> None:
    assert not inspect.isabstract(KerasOps)
    assert not inspect.isabstract(KerasParts)


@pytest.mark.parametrize("name", names())
def test_keras_gives_the_weights_their_names_and_shapes(name: str) -> None:
    subject = Subject(name)
    layer, channels = attention(subject.made, data_format="channels_last"), 4 * subject.channels
    context = subject.made.options().get("context_channels")
    layer.build(*((None, None, None, width) for width in (channels, context) if width))
    assert {key: value.shape for key, value in state(layer).items()} == weights(subject.made.parts(channels))
