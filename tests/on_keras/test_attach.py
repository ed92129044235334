"""Attaching to functional and Sequential models."""

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate import mechanisms
from foveate.cost import measure
from foveate.errors import UsageError
from foveate.surgery.core.adapter_file import write_adapter
from foveate.surgery.keras import host as keras_host
from foveate.surgery.keras.host import attached
from on_keras.steps import BACKEND, found, numpy

applications: Any = keras.applications


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
    """Return a block of two branches with convolutions of one shape, like the first block of a ResNet stage."""
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


def test_the_plan_changes_nothing() -> None:
    model = small()
    before, state = found(model), random.getstate()
    fk.plan(model, "se", reduction=4)
    assert found(model) == before
    assert random.getstate() == state


def test_attach_shares_the_weights_and_keeps_the_host() -> None:
    model, x = small(), picture(2, 9, 8, 3)
    before, config = out(model, x), model.get_config()
    new = fk.attach(model, "cbam", reduction=4)
    assert set(attached(new)) == {"block1_conv2", "block2_conv2"}
    assert {id(weight) for weight in model.weights} < {id(weight) for weight in new.weights}
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
    """Return the model with different weights in every layer."""
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

    The page on Keras warns about this; when this test fails, remove the warning.
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


# the call is in Keras's own code for JAX
@pytest.mark.filterwarnings("ignore:The `native_serialization` parameter is deprecated:DeprecationWarning")
def test_it_exports(tmp_path: Path) -> None:
    x = picture(2, 9, 8, 3)
    model = fk.attach(small(), "cbam", start="paper", reduction=4)
    if BACKEND == "torch":
        import torch

        model.export(
            tmp_path / "model.pt2", format="torch", verbose=False, input_signature=[keras.InputSpec("float32", x.shape)]
        )
        with torch.no_grad():
            y = numpy(torch.export.load(tmp_path / "model.pt2").module()(torch.from_numpy(x)))
    else:
        import tensorflow as tf

        model.export(tmp_path / "model", verbose=False)
        exported: Any = tf.saved_model.load(tmp_path / "model")
        y = numpy(exported.serve(x))
    np.testing.assert_allclose(y, out(model, x), rtol=1e-5, atol=1e-6)


class OwnConstructor(keras.Model):
    def __init__(self, name: str) -> None:
        x = keras.Input((8, 8, 8))
        super().__init__(x, keras.layers.Conv2D(8, 1, name="conv")(x), name=name)


def chain(*layers: Any, shape: tuple[int | None, ...] = (8, 8, 8), kind: Any = keras.Sequential) -> Any:
    return kind([keras.Input(shape), *layers])


def conv(name: str = "conv", **options: Any) -> Any:
    return keras.layers.Conv2D(8, 3, padding="same", name=name, **options)


def test_the_numbers_of_the_plan() -> None:
    model = chain(conv(), keras.layers.BatchNormalization(), chain(conv(), kind=keras.Sequential))
    model.layers[0].trainable = False
    wanted = 2 * (8 * 8 * 9 + 8) + 2 * 8
    assert fk.plan(model, "se", "conv", reduction=4).host_parameters == wanted
    assert fk.plan(fk.attach(model, "eca", "*/conv"), "se", "conv", reduction=4).host_parameters == wanted


def test_the_cost_is_that_of_all_calls_of_one_run() -> None:
    x, shared, inner = (
        keras.Input((8, 8, 8)),
        conv("shared"),
        chain(conv(), keras.layers.MaxPooling2D(), shape=(None, None, 8)),
    )
    y = inner(shared(shared(x)))
    model = keras.Model(x, inner(y))
    mechanism = mechanisms.create("cbam", reduction=4)
    twice, halved = fk.plan(model, mechanism, ["shared", "**/conv"]).sites
    one, small_one = (measure(mechanism, (1, 8, side, side), start="identity") for side in (8, 4))
    assert twice.cost == replace(one + one, parameters=one.parameters)
    assert halved.cost == replace(one + small_one, parameters=one.parameters)


def test_a_model_that_others_share_has_one_attention() -> None:
    inner = chain(conv(), kind=keras.Sequential)
    inner.name = "inner"
    x = keras.Input((8, 8, 8))
    b, a = (keras.Model(y := keras.Input((8, 8, 8)), conv("last")(inner(y)), name=name) for name in "ba")
    model, z = keras.Model(x, keras.layers.Add()([a(x), b(x)])), picture(1, 8, 8, 8)
    for where in ("a/inner/conv", "b/inner/conv", ["*/inner/conv", "b/inner/conv"], "**/conv"):
        assert [site.name for site in fk.plan(model, "eca", where).sites] == ["a/inner/conv"]
        new = fk.attach(model, "eca", where, start="paper")
        assert list(attached(new)) == ["a/inner/conv"]
        rebuilt = [new.get_layer(name).get_layer("inner") for name in "ab"]
        assert rebuilt[0] is rebuilt[1]
        again = fk.detach(new)
        assert attached(again) == {}
        np.testing.assert_array_equal(out(again, z), out(model, z))
    two = fk.attach(model, "eca", ["a/last", "b/last"])
    assert set(attached(two)) == {"a/last", "b/last"}


def test_a_second_attachment_adds_to_the_first() -> None:
    model = fk.attach(fk.attach(small(), "eca", "stem"), "se", "block1_add", reduction=4)
    assert {name: type(layer) for name, layer in attached(model).items()} == {"stem": fk.ECA, "block1_add": fk.SE}
    assert attached(fk.detach(model)) == {}


def test_attention_that_got_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_host, "rebuilt", lambda model, following, dropped: model)
    with pytest.raises(UsageError, match="report this model"):
        fk.attach(small(), "eca")


class Own(keras.Sequential):
    def train_step(self, *args: Any) -> Any:
        return {"own": 1}


class OwnGraph(keras.Model):
    def train_step(self, *args: Any) -> Any:
        return {"own": 1}


@pytest.mark.parametrize(
    "make", [lambda: chain(conv(), kind=Own), lambda: OwnGraph(x := keras.Input((8, 8, 8)), conv()(x))]
)
def test_a_model_with_a_training_step_of_its_own_keeps_it(make: Callable[[], Any]) -> None:
    model = make()
    new = fk.attach(model, "eca", "conv")
    assert type(new) is type(model) is type(fk.detach(new))
    assert new.train_step() == {"own": 1}


def test_a_model_inside_without_a_site_is_shared() -> None:
    own, x = OwnConstructor("own"), keras.Input((8, 8, 8))
    model = keras.Model(x, conv()(own(x)))
    new = fk.attach(model, "eca", "conv")
    assert new.get_layer("own") is own
    assert fk.detach(new).get_layer("own") is own
    assert list(attached(fk.attach(model, "eca", "own"))) == ["own"]


def test_a_model_inside_that_is_called_by_keyword() -> None:
    x, inner = keras.Input((8, 8, 8)), chain(conv())
    model, z = keras.Model(x, inner(inputs=x)), picture(1, 8, 8, 8)
    new = fk.attach(model, "eca", "**/conv")
    assert len(attached(new)) == 1
    assert np.array_equal(out(new, z), out(model, z))


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has no (N, C, H, W) convolution on CPUs")
@pytest.mark.parametrize(
    ("where", "sites"), [("residual", ["second"]), ("stage", ["add", "third"])]
)  # never the output
def test_channels_first(where: str, sites: list[str]) -> None:
    first: Any = {"data_format": "channels_first"}
    x = keras.Input((8, 12, 10))
    y = keras.layers.ReLU()(keras.layers.BatchNormalization(axis=1)(conv("first", **first)(x)))
    y = keras.layers.Add(name="add")([x, conv("second", **first)(y)])
    y = keras.layers.MaxPooling2D(**first)(y)
    model, z = keras.Model(x, conv("last", **first)(conv("third", **first)(y))), picture(2, 8, 12, 10)
    assert [site.name for site in fk.plan(model, "cbam", where, reduction=4).sites] == sites
    new = fk.attach(model, "cbam", where, reduction=4)
    assert {layer.data_format for layer in attached(new).values()} == {"channels_first"}
    assert {layer.channels for layer in attached(new).values()} == {8}
    np.testing.assert_array_equal(out(new, z), out(model, z))


def test_attention_takes_the_place_of_no_layer() -> None:
    host: Any = small()
    for call in (fk.plan, fk.attach):
        with pytest.raises(UsageError, match="leave replace out"):
            call(host, "eca", replace="SqueezeExcite")  # pyright: ignore[reportArgumentType]


def test_an_adapter_that_replaces_modules_is_refused(tmp_path: Path) -> None:
    model = fk.attach(small(), "eca", "stem")
    write_adapter(tmp_path / "a.safetensors", attached(model), replaced={"stem": "SqueezeExcite"})
    with pytest.raises(UsageError, match="leave replace out"):
        fk.load_adapter(small(), tmp_path / "a.safetensors")
