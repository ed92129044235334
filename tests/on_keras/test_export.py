"""Keras models of every backend as files: equal outputs at the traced size and at other sizes."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import foveate
import foveate.keras
from foveate.errors import UsageError
from foveate.exporting.formats import run_file
from foveate.exporting.forms import file_call


def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same")(images)
    x = keras.layers.BatchNormalization()(x)
    x = foveate.keras.CBAM(start="paper")(x)
    x = keras.layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = foveate.keras.CoordinateAttention(start="paper")(x)
    return keras.Model(images, keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x)))


def test_a_keras_model_as_onnx(tmp_path: Path) -> None:
    model = network()
    done = foveate.export(model, tmp_path / "a.onnx", (1, 24, 30, 3))
    checks = done.record["checks"]
    assert [check["shapes"][0] for check in checks][:2] == [[1, 24, 30, 3], [1, 25, 43, 3]]
    assert len(checks) == 4
    assert done.difference < 1e-5
    x = np.random.default_rng(0).random((4, 33, 20, 3), np.float32)
    wanted: Any = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(run_file(done.path)([x])[0], wanted, atol=1e-5)
    file_call(done.path, 2, 40, 1)()


def test_a_model_without_inputs_is_refused(tmp_path: Path) -> None:
    class Own(keras.Model):
        pass

    with pytest.raises(UsageError, match="functional or sequential"):
        foveate.export(Own(), tmp_path / "a.onnx", (1, 24, 30, 3))
