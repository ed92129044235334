"""A mechanism of the user's own as a Keras layer: outputs, saving and attaching."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras
from foveate.bind import states
from foveate.errors import UsageError
from foveate.oracle import evaluate
from mechanisms.own import Named, Pixel


def network() -> Any:
    inputs = keras.Input((9, 9, 3))
    x = keras.layers.Conv2D(8, 3, name="conv")(inputs)
    return keras.Model(inputs, keras.layers.Conv2D(4, 3)(x))


@pytest.mark.parametrize("given", [Pixel, Pixel(), "mechanisms.own:Pixel"], ids=str)
def test_a_layer_of_it_computes_what_the_oracle_computes(given: object) -> None:
    layer = foveate.keras.attention(given, bias=False)  # pyright: ignore[reportCallIssue, reportArgumentType]
    x = np.random.default_rng(0).random((2, 5, 4, 6), np.float32)
    y = np.asarray(keras.ops.convert_to_numpy(layer(x)))
    expected, _ = evaluate(layer.mechanism, states.read(layer), x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(y, expected.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)


def test_a_saved_model_with_it_is_loaded_where_its_class_is_imported(tmp_path: Path) -> None:
    host = network()
    model: Any = foveate.keras.attach(host, Pixel(bias=False), where="conv")
    x = np.random.default_rng(0).random((2, 9, 9, 3), np.float32)
    model.save(tmp_path / "model.keras")
    again: Any = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    config = foveate.keras.attention(Pixel).get_config()
    config["place"] = "elsewhere:Pixel"
    with pytest.raises(UsageError, match="import elsewhere first"):
        foveate.keras.Attention.from_config(config)


@pytest.mark.parametrize("name", ["input", "weights", "call", "dtype", "built", "channels"])
def test_a_part_that_is_named_like_an_attribute_of_a_layer_is_refused(name: str) -> None:
    layer = foveate.keras.attention(Named(name))
    with pytest.raises(UsageError, match=rf"keras's Layer does not use(.|\n)*'{name}'\nDo: .* to {name}_layer"):
        layer.build((None, 4, 4, 8))


def test_an_adapter_carries_it(tmp_path: Path) -> None:
    host = network()
    model: Any = foveate.keras.attach(host, Pixel(bias=False), where="conv")
    for layer in model._flatten_layers():
        if isinstance(layer, foveate.keras.Attention):
            layer.set_weights([np.ones(weight.shape) for weight in layer.get_weights()])
    foveate.keras.save_adapter(model, tmp_path / "a.safetensors")
    other = foveate.keras.load_adapter(host, tmp_path / "a.safetensors")
    x = np.random.default_rng(0).random((2, 9, 9, 3), np.float32)
    np.testing.assert_allclose(other.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    assert not np.allclose(other.predict(x, verbose=0), host.predict(x, verbose=0))
