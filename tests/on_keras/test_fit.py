"""Training by Keras's own `fit`, compiled where the backend compiles."""

from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate.data.digits.cluttered import DigitsOptions, make_scenes
from on_keras.steps import BACKEND
from on_keras.test_applications import RESIDUAL, built
from representatives import REPRESENTATIVES

COMPILED = BACKEND != "torch"  # with XLA; Keras's torch backend would start a C++ compiler
FEW = ("MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50")
# XLA compiles each for a minute.
NETWORKS = ["host", *(pytest.param(name, marks=pytest.mark.slow if COMPILED else ()) for name in FEW)]


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
@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_two_epochs_on_the_digits_lower_the_loss(name: str, digits: tuple[np.ndarray, np.ndarray]) -> None:
    model = fk.attach(host(), name, start="paper" if name == "se" else "identity")
    model.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=COMPILED
    )
    first = model.evaluate(*digits, batch_size=64, verbose=0)
    losses = model.fit(*digits, epochs=2, batch_size=32, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    assert model.evaluate(*digits, batch_size=64, verbose=0) < first


def twin(name: str) -> tuple[Any, str]:
    """Return a host, the same at each call, and the `where` for its attention."""
    keras.utils.set_random_seed(0)
    return (host(), "residual") if name == "host" else (built(name), "residual" if name in RESIDUAL else "stage")


def predicted_and_fitted(model: Any, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the predictions of the model, and the loss of one training step."""
    model.compile(
        keras.optimizers.SGD(1.0), "mse", jit_compile=COMPILED
    )  # a step that is large compared with the rounding of weights
    y = model.predict(x, verbose=0)
    keras.utils.set_random_seed(0)  # for dropout
    return y, model.fit(x, np.eye(*y.shape), batch_size=len(x), shuffle=False, verbose=0).history["loss"][0]


@pytest.mark.parametrize("name", NETWORKS)
def test_attention_changes_neither_predict_nor_the_first_step_of_the_host(name: str) -> None:
    (alone, where), (shared, _) = twin(name), twin(name)
    model = fk.attach(shared, "cbam", where, reduction=4)
    before = {id(weight): weight.numpy() for weight in [*alone.weights, *shared.weights]}
    x = np.random.default_rng(0).uniform(0, 1, (4, *alone.input_shape[1:])).astype("float32")
    (y, loss), (attended, its_loss) = predicted_and_fitted(alone, x), predicted_and_fitted(model, x)
    assert np.array_equal(attended, y)
    assert its_loss == pytest.approx(loss, rel=1e-6)
    for one, other in zip(alone.layers, shared.layers, strict=True):
        # Compare on one scale, because the gradient of a bias before a batch norm is rounding noise.
        for kind in ("trainable_weights", "non_trainable_weights"):
            moved, its_moved = (
                [weight.numpy() - before[id(weight)] for weight in getattr(layer, kind)] for layer in (one, other)
            )
            scale = max((np.abs(move).max() for move in moved), default=0)
            for a, b in zip(moved, its_moved, strict=True):
                np.testing.assert_allclose(b, a, rtol=0, atol=1e-4 * scale, err_msg=one.name)
