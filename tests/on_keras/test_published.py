"""Load published weights into Keras layers: weights of the Keras listings, and state dicts of torch."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from timm.layers import cbam

import foveate
import foveate.keras as fk
from foveate.bind.keras.attention import Attention
from foveate.bind.keras.layer_weights import state
from foveate.errors import UsageError
from foveate.mechanisms import names
from foveate.surgery.core.published import load_published
from golden_data import Arrays, Case, cases, error
from on_keras.steps import forward
from on_keras.test_golden import FORMATS, to_format, to_nchw
from tolerance import GOLDEN

ops: Any = keras.ops  # Any, because the declared return types include None
pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
EVALUATION = [case for case in cases() if not case.training]
# The first case of every layout.
LAYOUTS = list({(case.config.mechanism, case.config.layout): case for case in reversed(EVALUATION)}.values())


def tf_cbam(height: int, width: int, channels: int) -> Any:
    """The TensorFlow listing `cbam_module`."""
    x = keras.Input((height, width, channels))
    first, second = (
        layers.Dense(int(channels * 0.5), activation="relu", name="mlp_1"),
        layers.Dense(channels, name="mlp_2"),
    )
    pooled = [pool(keepdims=True)(x) for pool in (layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D)]
    channel = layers.Activation("sigmoid")(layers.Add()([second(first(each)) for each in pooled]))
    maps = layers.Concatenate()([ops.max(x, -1, keepdims=True), ops.mean(x, -1, keepdims=True)])
    spatial = layers.Conv2D(1, 7, padding="same", activation="sigmoid", name="conv")(maps)
    return keras.Model(x, x * channel * spatial)


def keras_coordinate(height: int, width: int, channels: int) -> Any:
    """The Keras listing `ca_block`, as the text of the listing describes it."""
    x = keras.Input((height, width, channels))
    rows, columns = ops.mean(x, 2, keepdims=True), ops.swapaxes(ops.mean(x, 1, keepdims=True), 1, 2)
    squeezed = layers.Conv2D(channels // 16, 1, use_bias=False, name="conv1")(layers.Concatenate(1)([rows, columns]))
    squeezed = layers.ReLU()(layers.BatchNormalization(name="bn")(squeezed))
    rows, columns = squeezed[:, :height], ops.swapaxes(squeezed[:, height:], 1, 2)
    gates = [
        layers.Conv2D(channels, 1, use_bias=False, activation="sigmoid", name=name)(each)
        for name, each in (("conv2", rows), ("conv3", columns))
    ]
    return keras.Model(x, x * gates[0] * gates[1])


LISTINGS: dict[str, Callable[..., Any]] = {"tf_cbam": tf_cbam, "keras_coordinate": keras_coordinate}
SAVED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "by layer": lambda model: {layer.name: layer.get_weights() for layer in model.layers},
    "by variable": lambda model: {weight.path: weight for weight in model.weights},
    "by path": lambda model: {f"{model.name}/{weight.path}:0": weight.numpy() for weight in model.weights},
}


def listed(case: Case) -> Any:
    """Return a listing as a Keras model with the golden weights."""
    _, channels, height, width = case.array("x").shape
    model = LISTINGS[case.config.layout](height, width, channels)
    for name in {key.rpartition(".")[0] for key in case.config.tables("sd")}:
        own = [
            value
            for key, value in case.config.tables("sd").items()
            if key.startswith(f"{name}.") and not key.endswith("tracked")
        ]
        model.get_layer(name).set_weights(
            [value.transpose({4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[value.ndim]) for value in own]
        )
    return model


def built(case: Case, data_format: Any = "channels_last", start: Any = "paper") -> Attention:
    layer = fk.attention(case.config.mechanism, start=start, data_format=data_format, **case.config.options)
    layer.build(*(to_format(case.array(name), data_format).shape for name in case.inputs))
    return layer


def wrong_by(run: Callable[..., np.ndarray], case: Case, data_format: str = "channels_last") -> float:
    y = run(*(to_format(case.array(name), data_format).astype("float32") for name in case.inputs))
    return error(to_nchw(y, data_format), case.array("y"))


@pytest.mark.parametrize("case", [case for case in EVALUATION if case.config.layout in LISTINGS], ids=str)
def test_a_keras_listing_loads_as_keras_gives_it(case: Case) -> None:
    model, layer = listed(case), built(case)
    run = forward(layer)
    assert wrong_by(forward(model), case) < GOLDEN[torch.float32]
    assert wrong_by(run, case) > 1e-2
    before = layer.get_weights()
    for saved in SAVED.values():
        layer.set_weights(before)
        assert load_published(layer, saved(model)) == case.config.layout
        assert wrong_by(run, case) < GOLDEN[torch.float32]


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("case", LAYOUTS, ids=str)
def test_a_state_dict_of_torch_loads(case: Case, data_format: str) -> None:
    layer = built(case, data_format)
    weights = {f"module.attention.{key}": torch.from_numpy(value) for key, value in case.config.tables("sd").items()}
    assert load_published(layer, weights) == case.config.layout
    assert wrong_by(forward(layer), case, data_format) < GOLDEN[torch.float32]


def test_every_mechanism_is_loaded() -> None:
    assert {case.config.mechanism for case in LAYOUTS} == set(names())


def test_maps_that_timm_saves_as_mean_and_max_are_turned_round() -> None:
    theirs = cbam.CbamModule(16, rd_ratio=1 / 4, mlp_bias=True).eval()
    layer = fk.CBAM(reduction=4, data_format="channels_first")
    x = torch.randn(2, 16, 6, 5, generator=torch.Generator().manual_seed(0))
    layer.build(tuple(x.shape))
    assert load_published(layer, theirs.state_dict()) == "timm"
    with torch.no_grad():
        np.testing.assert_allclose(forward(layer)(x.numpy()), theirs(x).numpy(), rtol=1e-5, atol=1e-6)


WEIGHTS: Arrays = {key: value.numpy() for key, value in foveate.attention("se", 16, reduction=4).state_dict().items()}
THEIRS = {
    f"fc.{place}.{leaf}": WEIGHTS[f"{name}.{leaf}"]
    for place, name in ((0, "reduce"), (2, "expand"))
    for leaf in ("weight", "bias")
}


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (
            {key.replace("fc.2", "fc.3"): value for key, value in THEIRS.items()},
            r"known for se:\n  fc .*fc.2.bias.*the keys fc.0.weight",
        ),
        (
            {**THEIRS, "fc.0.weight": np.ones((3, 16), "float32")},
            r"'fc.0.weight' of shape \(4, 16, 1, 1\).*shape \(3, 16\)",
        ),
        (
            {key: value for key, value in THEIRS.items() if key.endswith("weight")},
            "Do: build the module with bias=False",
        ),
        ({"fc.0": [np.ones((4, 16))], "fc.2": [np.ones((16, 4))]}, "Do: build the module with bias=False"),
        (
            {"fc.0": [np.ones((16, 4)), np.ones(4)], "fc.2": [np.ones((4, 15)), np.ones(15)]},
            r"'fc.2.weight' of shape \(16, 4, 1, 1\)",
        ),
        ({"fc.0": [np.ones((16, 4)), "ones"]}, r"names and tensors.*'fc.0': list"),
        ({}, "an empty state dict"),
        (
            {"reduce": [np.ones((16, 4)), np.ones(4), np.ones(4)], "expand": [np.ones((4, 16)), np.ones(16)]},
            r"'reduce' with the shapes",
        ),
        ({"reduce": [np.ones(4), np.ones(4), np.ones(4)]}, r"the four of a batch norm.*\(4,\), \(4,\), \(4,\)"),
        ({"reduce": [np.ones(4), np.ones(4)]}, "'reduce' with the shapes"),
        ({"reduce": [np.ones((1, 1, 1, 16, 4)), np.ones(4)]}, r"\(1, 1, 1, 16, 4\)"),
        ({"reduce/kernel": np.ones((1, 1, 1, 16, 4))}, r"'reduce/kernel' as the kernel.*the shape \(1, 1, 1, 16, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(saved: dict[str, Any], said: str) -> None:
    layer = fk.SE(reduction=4)
    layer.build((None, None, None, 16))
    before = state(layer)
    with pytest.raises(UsageError, match=f"(?s){said}"):
        load_published(layer, saved)
    after = state(layer)
    assert all(np.array_equal(after[key], value) for key, value in before.items())
    assert load_published(layer, THEIRS) == "fc"  # and weights that fit are accepted


def test_a_layer_without_weights_and_another_layer_are_refused() -> None:
    with pytest.raises(UsageError, match="never called"):
        load_published(fk.SE(reduction=4), THEIRS)
    with pytest.raises(UsageError, match="made by foveate"):
        load_published(keras.layers.ReLU(), THEIRS)
