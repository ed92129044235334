"""Attaching to functional and Sequential models."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate.errors import UsageError
from foveate.surgery.keras_attach import attached
from on_keras.steps import BACKEND, numpy

applications: Any = keras.applications


NOTHING: Any = 3  # for what is no mechanism


def resnet() -> Any:
    return applications.ResNet50(weights=None, input_shape=(64, 64, 3), classes=10)


def small(name: str = "small") -> Any:
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    for number in (1, 2):
        y = keras.layers.Conv2D(8, 3, padding="same", name=f"block{number}_conv1")(x)
        y = keras.layers.ReLU(name=f"block{number}_relu")(y)
        y = keras.layers.Conv2D(8, 3, padding="same", name=f"block{number}_conv2")(y)
        x = keras.layers.Add(name=f"block{number}_add")([x, y])
    return keras.Model(inputs, x, name=name)


def forked() -> Any:
    """A block of two branches with convolutions of one shape, as the first of each stage of a ResNet has."""
    x = keras.Input((None, None, 8))
    short = keras.layers.Conv2D(8, 3, padding="same", name="short")(x)
    y = keras.layers.Conv2D(8, 3, padding="same", name="long_1")(x)
    y = keras.layers.Conv2D(8, 3, padding="same", name="long_2")(y)
    return keras.Model(x, keras.layers.Add()([short, y]))


def picture(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def out(model: Any, x: np.ndarray) -> np.ndarray:
    return numpy(model(x))


def test_the_residual_branches_of_a_resnet() -> None:
    plan = fk.plan(resnet(), "cbam")
    blocks = [(2, 3), (3, 4), (4, 6), (5, 3)]
    assert [site.name for site in plan.sites] == [
        f"conv{stage}_block{block}_3_bn" for stage, count in blocks for block in range(1, count + 1)
    ]
    assert [site.shape for site in plan.sites[:1]] == [(1, 256, 16, 16)]
    assert plan.host_parameters == resnet().count_params()


def test_the_plan_changes_nothing() -> None:
    model = small()
    before = [len(layer._inbound_nodes) for layer in model.layers]
    fk.plan(model, "se", reduction=4)
    assert [len(layer._inbound_nodes) for layer in model.layers] == before


def test_attach_shares_the_layers_and_keeps_the_host() -> None:
    model, x = small(), picture(2, 9, 8, 3)
    before, config = out(model, x), model.get_config()
    new = fk.attach(model, "cbam", reduction=4)
    assert set(attached(new)) == {"block1_conv2", "block2_conv2"}
    assert all(any(layer is other for other in new.layers) for layer in model.layers if not isinstance(layer, keras.layers.InputLayer))
    assert np.array_equal(out(new, x), before)
    assert np.array_equal(out(model, x), before)
    assert model.get_config() == config
    model.get_layer("stem").kernel.assign(model.get_layer("stem").kernel.numpy() * 2)
    assert np.array_equal(out(new, x), out(model, x))
    assert not np.array_equal(out(new, x), before)


def test_what_is_attached_is_used_and_detached() -> None:
    model, x = small(), picture(2, 9, 8, 3)
    new = fk.attach(model, "se", start="paper", reduction=4)
    assert not np.allclose(out(new, x), out(model, x))
    again = fk.detach(new)
    assert attached(again) == {}
    assert np.array_equal(out(again, x), out(model, x))
    assert fk.detach(model) is model


@pytest.mark.parametrize(
    ("where", "sites"),
    [
        ("block*_add", ["block1_add", "block2_add"]),
        (keras.layers.ReLU, ["block1_relu", "block2_relu"]),
        (lambda name, layer, shape: name.endswith("conv1") and shape[1] == 8, ["block1_conv1", "block2_conv1"]),
        (["stem", "block2_*2"], ["stem", "block2_conv2"]),
    ],
)
def test_where(where: Any, sites: list[str]) -> None:
    assert [site.name for site in fk.plan(small(), "eca", where).sites] == sites


def test_stages() -> None:
    assert [site.name for site in fk.plan(resnet(), "eca", "stage").sites] == [
        "conv2_block3_out", "conv3_block4_out", "conv4_block6_out", "conv5_block3_out",
    ]  # fmt: skip


def test_a_model_inside_a_model() -> None:
    head = [small("backbone"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
    model, x = keras.Sequential([keras.Input((12, 12, 3)), *head]), picture(2, 12, 12, 3)
    new = fk.attach(model, "cbam", reduction=4)
    assert set(attached(new)) == {"backbone/block1_conv2", "backbone/block2_conv2"}
    assert isinstance(new, keras.Sequential)
    assert np.array_equal(out(new, x), out(model, x))
    assert np.array_equal(out(fk.detach(new), x), out(model, x))
    assert [site.name for site in fk.plan(model, "se", "backbone/stem", reduction=4).sites] == ["backbone/stem"]


def test_a_layer_that_is_called_twice_has_one_attention() -> None:
    inputs, conv = keras.Input((8, 8, 8)), keras.layers.Conv2D(8, 3, padding="same", name="shared")
    model = keras.Model(inputs, conv(conv(inputs)))
    new = fk.attach(model, "eca", "shared")
    assert len([layer for layer in new.layers if isinstance(layer, fk.Attention)]) == 1
    assert np.array_equal(out(new, picture(1, 8, 8, 8)), out(model, picture(1, 8, 8, 8)))


def test_it_saves_loads_and_fits(tmp_path: Path) -> None:
    inputs = keras.Input((12, 12, 3))
    y = keras.layers.GlobalAveragePooling2D()(small()(inputs))
    model = fk.attach(keras.Model(inputs, keras.layers.Dense(3)(y)), "cbam", reduction=4)
    x, labels = picture(16, 12, 12, 3), np.arange(16) % 3
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = {name: layer.get_weights() for name, layer in attached(model).items()}
    model.fit(x, labels, epochs=2, verbose=0)
    model.fit(x, labels, epochs=2, verbose=0)
    for name, layer in attached(model).items():
        moved = [not np.array_equal(a, b) for a, b in zip(before[name], layer.get_weights(), strict=True)]
        assert all(moved), name
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(out(again, x), out(model, x), rtol=1e-5, atol=1e-6)
    assert set(attached(again)) == set(attached(model))
    assert attached(fk.detach(again)) == {}


def shaken(model: Any) -> Any:
    """The model, no two layers of which have the same weights."""
    random = np.random.default_rng(1)
    model.set_weights([random.uniform(0.5, 1, weight.shape).astype("float32") for weight in model.get_weights()])
    return model


def same(host: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(host.get_weights(), other.get_weights(), strict=True))


def test_host_weights_load_by_way_of_the_host(tmp_path: Path) -> None:
    host, other = shaken(forked()), forked()
    new = fk.attach(other, "se", reduction=4)
    host.save_weights(tmp_path / "host.weights.h5")
    assert not same(host, other)
    fk.detach(new).load_weights(tmp_path / "host.weights.h5")
    assert same(host, other)
    assert np.array_equal(out(new, picture(1, 5, 4, 8)), out(host, picture(1, 5, 4, 8)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_host_weights_loaded_past_the_host_may_be_mixed_up(tmp_path: Path) -> None:
    """Keras numbers the layers in the file by their depth, and attention in one branch changes their order.

    The page on Keras warns of it; where this fails, it need not any more.
    """
    host, other = shaken(forked()), forked()
    new = fk.attach(other, "se", reduction=4)
    host.save_weights(tmp_path / "host.weights.h5")
    with pytest.raises(ValueError, match="objects could not be loaded"):
        new.load_weights(tmp_path / "host.weights.h5")
    new.load_weights(tmp_path / "host.weights.h5", skip_mismatch=True)
    assert not same(host, other)


def test_host_weights_of_the_old_format_load_by_name(tmp_path: Path) -> None:
    host, other = shaken(forked()), forked()
    new = fk.attach(other, "se", reduction=4)
    host.save(tmp_path / "host.h5")
    new.load_weights(tmp_path / "host.h5", by_name=True)
    assert same(host, other)


# Keras's own call to JAX
@pytest.mark.filterwarnings("ignore:The `native_serialization` parameter is deprecated:DeprecationWarning")
def test_it_exports(tmp_path: Path) -> None:
    x = picture(2, 9, 8, 3)
    model = fk.attach(small(), "cbam", start="paper", reduction=4)
    if BACKEND == "torch":
        import torch

        model.export(tmp_path / "model.pt2", format="torch", verbose=False, input_signature=[keras.InputSpec("float32", x.shape)])
        with torch.no_grad():
            y = numpy(torch.export.load(tmp_path / "model.pt2").module()(torch.from_numpy(x)))
    else:
        import tensorflow as tf

        model.export(tmp_path / "model", verbose=False)
        exported: Any = tf.saved_model.load(tmp_path / "model")
        y = numpy(exported.serve(x))
    np.testing.assert_allclose(y, out(model, x), rtol=1e-5, atol=1e-6)


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.conv = keras.layers.Conv2D(8, 3)

    def call(self, x: Any) -> Any:
        return self.conv(x)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: fk.attach(Subclassed(), "cbam"), "by hand"),
        (lambda: fk.attach(keras.Sequential([keras.layers.Conv2D(8, 3)]), "cbam", "*"), "known inputs"),
        (lambda: fk.attach(keras.layers.ReLU(), "cbam"), "which is no model"),
        (lambda: fk.attach(small(), "cbam", "block9*"), "chooses none"),
        (lambda: fk.attach(small(), NOTHING), "a mechanism's name"),
        (lambda: fk.attach(fk.attach(small(), "eca"), "se", reduction=4), "detach"),
        (lambda: fk.plan(small(), "eca", example=(1, 3)), "example as the shape"),
        (lambda: fk.attach(applications.VGG16(weights=None, input_shape=(32, 32, 3), classes=3), "eca"), "chooses none"),
    ],
)
def test_what_cannot_work_is_refused(call: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()
