"""Every family of `keras.applications`: attention attaches, leaves the output equal, learns, and saves with its host.

Outputs are equal bit for bit, whether eager (TensorFlow, torch) or compiled (JAX).
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import foveate.keras as fk
from foveate.errors import UsageError
from foveate.surgery.keras.host import attached
from on_keras.steps import BACKEND, forward, gradients

CLASSES = 5
# The side of the input, and the number of sites; "stage" is for the networks without residual additions.
RESIDUAL = {
    "ConvNeXtBase": (32, 36),
    "ConvNeXtLarge": (32, 36),
    "ConvNeXtSmall": (32, 36),
    "ConvNeXtTiny": (32, 18),
    "ConvNeXtXLarge": (32, 36),
    "EfficientNetB0": (32, 9),
    "EfficientNetB1": (32, 16),
    "EfficientNetB2": (32, 16),
    "EfficientNetB3": (32, 19),
    "EfficientNetB4": (32, 25),
    "EfficientNetB5": (32, 32),
    "EfficientNetB6": (32, 38),
    "EfficientNetB7": (32, 48),
    "EfficientNetV2B0": (32, 15),
    "EfficientNetV2B1": (32, 21),
    "EfficientNetV2B2": (32, 22),
    "EfficientNetV2B3": (32, 26),
    "EfficientNetV2L": (32, 73),
    "EfficientNetV2M": (32, 51),
    "EfficientNetV2S": (32, 35),
    "InceptionResNetV2": (75, 40),
    "MobileNetV2": (32, 10),
    "MobileNetV3Large": (32, 10),
    "MobileNetV3Small": (32, 6),
    "NASNetLarge": (32, 63),
    "NASNetMobile": (32, 47),
    "ResNet101": (32, 33),
    "ResNet101V2": (32, 33),
    "ResNet152": (32, 50),
    "ResNet152V2": (32, 50),
    "ResNet50": (32, 16),
    "ResNet50V2": (32, 16),
    "Xception": (71, 12),
}
STAGE = {
    "DenseNet121": (64, 4),
    "DenseNet169": (64, 4),
    "DenseNet201": (64, 4),
    "InceptionV3": (75, 5),
    "MobileNet": (64, 5),
    "VGG16": (32, 5),
    "VGG19": (32, 5),
}
# JAX compiles each network five times.
# XLA fuses the attached graph differently, which gives rounding errors of 1e-7 per layer, over hundreds of layers,
# before a softmax of logits near 100.
REORDERED = {("NASNetLarge", "jax"), ("NASNetMobile", "jax")}
QUICK = ("MobileNetV3Small",) if BACKEND == "jax" else ("MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50")
NETWORKS = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(RESIDUAL | STAGE)]


def built(name: str) -> Any:
    side, _ = (RESIDUAL | STAGE)[name]
    saturated: dict[str, Any] = {"classifier_activation": None} if name == "NASNetLarge" else {}  # it says 0 and 1 only
    return getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3), classes=CLASSES, **saturated)


def test_they_are_all() -> None:
    assert {name for name, one in vars(keras.applications).items() if callable(one)} == {*RESIDUAL, *STAGE}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.reliability(7)
def test_a_network_of_keras_applications(name: str, tmp_path: Path) -> None:
    if name.startswith("NASNet") and BACKEND == "torch":
        pytest.skip("Keras itself refuses to build NASNet on torch")
    side, sites = (RESIDUAL | STAGE)[name]
    host, where = built(name), "residual" if name in RESIDUAL else "stage"
    random = np.random.default_rng(0)
    x, dy = (
        random.uniform(0, 255, (4, side, side, 3)).astype("float32"),
        random.normal(size=(4, CLASSES)).astype("float32"),
    )
    run_host, config = forward(host), host.get_config()
    before = run_host(x)

    assert len(fk.plan(host, "cbam", where, reduction=4).sites) == sites
    model = fk.attach(host, "cbam", where, reduction=4)
    assert len(attached(model)) == sites
    run = forward(model)
    if (name, BACKEND) in REORDERED:
        np.testing.assert_allclose(run(x), before, rtol=2e-3, atol=1e-6)
    else:
        assert np.array_equal(run(x), before)
    assert host.get_config() == config

    new = {id(weight): weight for layer in attached(model).values() for weight in layer.trainable_variables}
    for weight in new.values():
        if weight.path.endswith(("/expand/kernel", "/norm/gamma")):  # not 0, but too small to close a gate
            weight.assign(np.full(weight.shape, 1e-3))
        if weight.path.endswith("/reduce/bias"):
            weight.assign(np.ones(weight.shape))  # so that no ReLU switches off all hidden units
    idle = [
        weight.path
        for weight, gradient in zip(model.trainable_variables, gradients(model, x, dy), strict=True)
        if id(weight) in new and not (np.isfinite(gradient).all() and gradient.any())
    ]
    assert idle == []

    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert set(attached(again)) == set(attached(model))
    wanted = run(x)
    assert not np.array_equal(wanted, before)
    np.testing.assert_allclose(forward(again)(x), wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(forward(fk.detach(again))(x), run_host(x))


@pytest.mark.parametrize("name", ["MobileNet", "VGG16"])
def test_a_network_without_residual_additions_says_what_to_use(name: str) -> None:
    with pytest.raises(UsageError, match="use where='stage'"):
        fk.plan(built(name), "cbam")
