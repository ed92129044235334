"""Training by Keras's own `fit`, compiled where the backend compiles."""

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate.data.digits import DigitsOptions, make_scenes
from foveate.mechanisms import names
from on_keras.steps import BACKEND


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    scenes = make_scenes(DigitsOptions(canvas=32, fragments=4, train=256, val=10, test=10))["train"]
    return scenes.images[..., None].astype("float32") / 255, scenes.labels


def host() -> keras.Model:
    inputs = keras.Input((32, 32, 1))
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(inputs)
    y = keras.layers.Conv2D(16, 3, padding="same", activation="relu", name="branch")(x)
    x = keras.layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(keras.layers.Add()([x, y]))
    return keras.Model(inputs, keras.layers.Dense(10)(keras.layers.GlobalMaxPooling2D()(x)))


@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
@pytest.mark.parametrize("name", names())
def test_two_epochs_on_the_digits_lower_the_loss(name: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    model = fk.attach(host(), name, start="paper" if name == "se" else "identity")
    compiled = BACKEND != "torch"  # by XLA; Keras's torch backend would start a C++ compiler
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=compiled)
    first = model.evaluate(*digits, batch_size=64, verbose=0)
    losses = model.fit(*digits, epochs=2, batch_size=32, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    assert model.evaluate(*digits, batch_size=64, verbose=0) < first
