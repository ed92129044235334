"""The Keras backend has every operation and part, and gives the weights of a part the names and shapes of torch."""

import inspect

import pytest

from foveate.bind.keras.attention import attention
from foveate.bind.keras.ops import KerasOps
from foveate.bind.keras.parts import KerasParts
from foveate.bind.keras.weights import state
from foveate.mechanisms import create, names
from foveate.parts import weights


def test_the_backend_lacks_nothing() -> None:
    assert not inspect.isabstract(KerasOps)
    assert not inspect.isabstract(KerasParts)


@pytest.mark.parametrize("name", names())
def test_keras_gives_the_weights_their_names_and_shapes(name: str) -> None:
    layer = attention(name, data_format="channels_last")
    layer.build((None, None, None, 32))
    assert {key: value.shape for key, value in state(layer).items()} == weights(create(name).parts(32))
