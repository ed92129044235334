"""An attached model's layers belong to its own graph: features, Grad-CAM and a new head see the attention."""

import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate.errors import UsageError
from foveate.surgery.keras.host import attached
from on_keras.steps import BACKEND, numpy


def network() -> Any:
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    y = keras.layers.Conv2D(8, 3, padding="same", name="conv")(x)
    y = keras.layers.BatchNormalization(name="norm")(y)
    x = keras.layers.ReLU(name="last")(keras.layers.Add(name="add")([x, y]))
    x = keras.layers.GlobalAveragePooling2D(name="gap")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(x))


def pictures(count: int = 4, side: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, side, side, 3)).astype("float32")


def both() -> tuple[Any, Any]:
    """Return a host, and a model whose attention changes its outputs."""
    host = network()
    return host, fk.attach(host, "se", start="paper", reduction=2)


def test_features_are_those_with_attention() -> None:
    host, model = both()
    x = pictures()
    features = keras.Model(model.input, model.get_layer("gap").output)
    assert np.array_equal(numpy(model.get_layer("head")(features(x))), numpy(model(x)))
    plain = keras.Model(host.input, host.get_layer("gap").output)
    assert np.abs(numpy(features(x)) - numpy(plain(x))).max() > 1e-2
    assert np.array_equal(numpy(host.get_layer("head")(plain(x))), numpy(host(x)))


def test_the_hosts_inputs_do_not_give_the_attached_features_in_silence() -> None:
    host, model = both()
    with pytest.raises(ValueError, match="not connected"):
        keras.Model(host.input, model.get_layer("gap").output)


def test_attaching_does_not_call_the_hosts_layers() -> None:
    host, model = both()
    for layer in host.layers:
        twin = next((other for other in model.layers if other.name == layer.name), None)
        assert twin is not layer
        assert len(layer._inbound_nodes) == 1
        if twin is not None and layer.weights:
            assert all(one is other for one, other in zip(twin.weights, layer.weights, strict=True))


def test_a_new_head_learns_and_the_host_shares_the_weights() -> None:
    host, model = both()
    outputs = keras.layers.Dense(2, name="new")(model.get_layer("gap").output)
    new = keras.Model(model.input, outputs)
    assert attached(new).keys() == attached(model).keys()
    before = [numpy(weight).copy() for weight in host.get_layer("conv").weights]
    statistics = numpy(host.get_layer("norm").moving_mean).copy()
    new.compile("sgd", "mse")
    new.fit(pictures(), np.ones((4, 2), "float32"), epochs=1, verbose=0)  # pyright: ignore[reportArgumentType]
    after = host.get_layer("conv").weights
    assert all(not np.array_equal(numpy(now), old) for now, old in zip(after, before, strict=True))
    assert not np.array_equal(numpy(host.get_layer("norm").moving_mean), statistics)


def test_grad_cam_weighs_the_maps_that_the_model_uses() -> None:
    _, model = both()
    x, kernel = pictures(1), numpy(model.get_layer("head").kernel)
    two = keras.Model(model.input, [model.get_layer("last").output, model.output])
    maps, logits = (numpy(value) for value in two(x))
    # The head after a global mean: the gradient of a logit in a map is its weight over the number of positions.
    assert np.allclose((maps.mean((1, 2)) @ kernel), logits - numpy(model.get_layer("head").bias), atol=1e-5)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            last, logits = two(tf.constant(x))
            score = logits[:, 1]
        gradient = numpy(tape.gradient(score, last))
        expected = np.broadcast_to(kernel[:, 1] / (12 * 12), gradient.shape)
        assert np.allclose(gradient, expected, atol=1e-6)


def test_a_second_attachment_and_a_detached_model_have_features_too(tmp_path: Path) -> None:
    host, model = both()
    more = fk.attach(model, "eca", "stem", start="paper")
    x = pictures()
    for one in (more, fk.detach(more)):
        features = keras.Model(one.input, one.get_layer("gap").output)
        assert np.array_equal(numpy(one.get_layer("head")(features(x))), numpy(one(x)))
    assert np.array_equal(numpy(fk.detach(more)(x)), numpy(host(x)))
    more.save(tmp_path / "more.keras")
    again: Any = keras.saving.load_model(tmp_path / "more.keras")
    assert np.allclose(numpy(again(x)), numpy(more(x)), atol=1e-6)


def test_predict_keeps_outputs_that_vary_to_rounding() -> None:
    """A compiled call may sum in another order; a direct call does not."""
    applications: Any = keras.applications
    common: dict[str, Any] = {"weights": None, "classes": 5, "classifier_activation": None}
    host: Any = applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, **common)
    rng = np.random.default_rng(1)
    norms: list[Any] = [layer for layer in host.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        shape = layer.moving_mean.shape
        layer.moving_mean.assign(0.1 * rng.normal(size=shape))
        layer.moving_variance.assign(rng.uniform(0.02, 0.1, size=shape))
    model, x = fk.attach(host, "eca"), pictures(6, 32)
    before, after = host.predict(x, verbose=0), model.predict(x, verbose=0)
    assert before.std(0).min() > 0.02 * np.abs(before).max()
    assert np.abs(after - before).max() < 2e-4 * np.abs(before).max()
    assert np.array_equal(numpy(model(x)), numpy(host(x)))


def test_methods_that_replace_weights_are_refused_until_the_model_has_its_own(tmp_path: Path) -> None:
    host, model = both()
    before = [numpy(weight).copy() for weight in host.weights]
    with warnings.catch_warnings(action="ignore"), pytest.raises(UsageError, match="save the model and load it again"):
        model.quantize("int8")  # it warns that an InputLayer has nothing to quantise
    with pytest.raises(UsageError, match="for enable_lora"):
        model.get_layer("head").enable_lora(2)
    assert all(np.array_equal(numpy(now), old) for now, old in zip(host.weights, before, strict=True))
    model.save(tmp_path / "model.keras")
    own: Any = keras.saving.load_model(tmp_path / "model.keras")
    own.get_layer("head").enable_lora(2)
    assert np.allclose(numpy(own(pictures())), numpy(model(pictures())), atol=1e-6)


class Backbone(keras.Model):
    """A functional model with a constructor of its own, as the backbones of KerasHub are."""

    def __init__(self, width: int = 8, **more: Any) -> None:
        inputs = keras.Input((None, None, 3), name="images")
        x = keras.layers.Conv2D(width, 3, padding="same", name="conv")(inputs)
        super().__init__(inputs=inputs, outputs=keras.layers.ReLU(name="act")(x), **more)
        self.width = width


class Stepping(Backbone):
    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        return super().train_step(*args, **kwargs)


def test_a_backbone_with_its_own_constructor_becomes_a_plain_functional_model() -> None:
    backbone, x = Backbone(), pictures()
    model = fk.attach(backbone, "se", "conv", reduction=2)
    assert type(model) is not Backbone
    assert np.array_equal(numpy(model(x)), numpy(backbone(x)))
    inside = keras.Sequential([keras.Input((12, 12, 3)), Backbone(name="inner"), keras.layers.GlobalMaxPooling2D()])
    whole = fk.attach(inside, "se", "inner/conv", reduction=2)
    assert np.array_equal(numpy(whole(x)), numpy(inside(x)))
    with pytest.raises(UsageError, match=r"own constructor and train_step\nDo: attach to keras\.Model\(model\.inputs"):
        fk.attach(Stepping(), "se", "conv")
