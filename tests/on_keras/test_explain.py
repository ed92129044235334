"""`foveate.explain` shows the attention of Keras models, on every backend."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from PIL import Image

import foveate
import foveate.keras as fk
from foveate.detection.heads import OWN_MASK, make_heads
from foveate.errors import UsageError
from foveate.gates.grad_cam_keras import grad_cam_keras
from on_keras.steps import numpy
from on_keras.test_detect import thin
from on_keras.test_record import FORMATS, attributes, first, network

X = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
BOXES = [[[0, 0, 4, 8]], [], [[0, 0, 8, 8]]]


def test_the_maps_of_a_keras_model_are_its_gates(tmp_path: Path) -> None:
    model = network()
    found = foveate.explain(model, X, boxes=BOXES, batch=2)
    with fk.record(model) as maps:
        y = model(X)
    (maps_of,) = found.arms.values()
    assert list(found.arms) == ["CBAM"]
    for site in ("one", "two"):
        gates = maps[site]
        assert gates.spatial is not None
        assert gates.channel is not None
        np.testing.assert_allclose(maps_of[f"gate/{site}/spatial"], gates.spatial[:, 0], atol=1e-5)
        np.testing.assert_allclose(maps_of[f"channel/{site}/channel"], gates.channel[:, :, 0, 0], atol=1e-5)
    assert maps_of["predictions"].tolist() == numpy(y).argmax(1).tolist()
    inside = [row["inside"] for row in found.numbers if (row["layer"], row["gate"]) == ("one", "spatial")]
    assert (inside[1], inside[2]) == (None, 1)
    assert found.save(tmp_path).stat().st_size > 10_000
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_files_are_given_as_bytes_in_the_size_of_the_input(tmp_path: Path) -> None:
    model = network()
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    of_file, of_array = foveate.explain(model, tmp_path), foveate.explain(model, pixels.astype("float32"))
    assert "values from 0 to 255" in of_file.notes[0]
    assert {row["gate"] for row in of_array.numbers} == {"channel", "spatial", "Grad-CAM: predicted class"}
    assert of_array.notes == []
    np.testing.assert_allclose(
        of_file.arms["CBAM"]["gate/one/spatial"], of_array.arms["CBAM"]["gate/one/spatial"], atol=1e-5
    )
    assert (of_file.arms["CBAM"]["images"] == pixels).all()
    with pytest.raises(UsageError, match="where boxes are given"):
        foveate.explain(model, tmp_path, boxes=[[]])
    with pytest.raises(UsageError, match="models of both frameworks"):
        foveate.explain({"a": model, "b": torch.nn.ReLU()}, pixels)
    maps = keras.Model(model.inputs[0], model.get_layer("one").output)
    with pytest.raises(UsageError, match="a classifier, whose output is"):
        foveate.explain(fk.attach(maps, "se", ["one"], reduction=4), pixels, grad_cam=True)


@pytest.mark.parametrize("last", ["pooled", "dense", "softmax", "softmax layer"])
def test_grad_cam_is_that_of_the_definition(last: str) -> None:
    """After a mean over positions the gradient of a class is its row of weights, over the number of positions."""
    host = network()
    weights = np.eye(8)
    if last != "pooled":
        activation = "softmax" if last == "softmax" else None
        host = keras.Model(host.inputs[0], keras.layers.Dense(5, activation=activation, name="logits")(host.outputs[0]))
        weights = numpy(host.get_layer("logits").kernel)
    if last == "softmax layer":
        host = keras.Model(host.inputs[0], keras.layers.Softmax()(host.outputs[0]))
    features = [layer for layer in host.layers if isinstance(layer, fk.CBAM)][-1]
    maps = numpy(keras.Model(host.inputs[0], features.output)(X))
    before = attributes(host)
    found = grad_cam_keras(host, X, batch=2)
    assert found is not None
    assert found.layer == "two"
    chosen = numpy(host(X)).argmax(1)
    expected = np.maximum(np.einsum("nhwc,cn->nhw", maps, weights[:, chosen]) / 64, 0)
    np.testing.assert_allclose(found.maps["predicted class"], expected, atol=1e-6)
    named = grad_cam_keras(host, X, {"it": int(chosen[1])})
    assert named is not None
    np.testing.assert_allclose(named.maps["it"][1], expected[1], atol=1e-6)
    assert attributes(host) == before
    with pytest.raises(UsageError, match="a class of the model"):
        grad_cam_keras(host, X, {"none": len(weights[0])})


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX gives a gradient of zeros")
def test_a_last_map_that_the_scores_do_not_use_is_refused() -> None:
    class Aside(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.aside = keras.layers.Conv2D(2, 1), keras.layers.Conv2D(2, 1, name="aside")

        def call(self, x: Any, training: bool = False) -> Any:
            scores = keras.ops.mean(self.used(x), (1, 2))
            self.aside(x)
            return scores

    with pytest.raises(UsageError, match=r"scores that depend on .*\n.*aside"):
        grad_cam_keras(Aside(), X)


@pytest.mark.parametrize("data_format", FORMATS)
def test_grad_cam_of_a_detector_explains_its_best_box(data_format: Any) -> None:
    """By hand: a head is linear in the features of the cell of its box."""
    made = thin(data_format)
    made = fk.attach(made, "se", [made.layers[1].name], reduction=4)
    model = fk.Detector(made, make_heads(mask=OWN_MASK), data_format=data_format)
    x = np.random.default_rng(0).random((1, 64, 64, 3), "float32")
    x = x if data_format == "channels_last" else x.transpose(0, 3, 1, 2)
    expected: Any = None
    best = 0.0
    for output, size in zip(made.outputs, (2, 4), strict=True):
        layer = output._keras_history.operation
        features, values = (
            first(keras.Model(made.inputs[0], part)(x), data_format)[0] for part in (layer.input, output)
        )
        kernel, sigmoid = numpy(layer.kernel)[0, 0], 1 / (1 + np.exp(-values.reshape(3, 15, size, size)))
        scores = sigmoid[:, 4:5] * sigmoid[:, 5:]
        a, k, i, j = np.unravel_index(scores.argmax(), scores.shape)
        if scores.max() > best:
            best, s = scores.max(), sigmoid[a, :, i, j]
            of_objectness, of_class = ((1 - s[at]) * best * kernel[:, 15 * a + at] for at in (4, 5 + k))
            map_ = np.einsum("c,chw->hw", of_objectness + of_class, features) / size**2
            expected = np.maximum(map_, 0)
    found = foveate.explain(model, x, boxes=[[[0, 0, 64, 64]]])
    (maps,) = found.arms.values()
    cam = maps["cam/best box"][0]
    if expected.shape == (2, 2):  # the map of the coarse head, in the size of the fine one
        cam, expected = cam[::3, ::3], expected
    np.testing.assert_allclose(cam, expected, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(maps["cam_numbers/best box"][0, :2], 1)
    assert cam.max() > 0
