"""Keras models of every backend as files: equal outputs at the traced size and at other sizes."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import foveate
import foveate.keras
from foveate.detection.heads import Head
from foveate.errors import MissingExtra, UsageError
from foveate.exporting import keras_models
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


def test_a_keras_model_as_litert(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    done = foveate.export(network(), tmp_path / "a.tflite", (2, 24, 30, 3))
    assert done.difference < 1e-5
    assert [check["shapes"] for check in done.record["checks"]] == [[[2, 24, 30, 3]]]
    assert {"keras", "tensorflow"} <= done.record["versions"].keys()
    assert done.record["operators"]["CONV_2D"] >= 2
    assert not done.record["dynamic"]


def detector() -> foveate.keras.Detector:
    keras.utils.set_random_seed(3)
    images = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 8, strides=8)(images)
    x = foveate.keras.CBAM(reduction=2, start="paper")(x)
    wide: Any = keras.initializers.RandomNormal(0, 2)
    outputs = [keras.layers.Conv2D(2 * 8, 1, kernel_initializer=wide)(x)]
    heads = [Head(((9.0, 8.0), (14.0, 20.0)), 8, 1.05)]
    return foveate.keras.Detector(keras.Model(images, outputs), heads)


@pytest.mark.parametrize("boxes", ["nms", pytest.param("outputs", marks=pytest.mark.slow)])
def test_the_boxes_of_a_keras_detector(boxes: Any, tmp_path: Path) -> None:
    model = detector()
    limits = {"conf": 0.2, "iou": 0.4, "max_det": 9}
    done = foveate.export(model, tmp_path / "a.onnx", (1, 64, 96, 3), boxes=boxes, **limits)
    checks = done.record["checks"]
    assert {check["agreement"] for check in checks} == {1.0}
    assert sum(check["count"] for check in checks) > 20
    if boxes == "nms":
        x = np.random.default_rng(0).random((2, 64, 48, 3), np.float32)
        found, scores, _, images = run_file(done.path)([x])
        for number, wanted in enumerate(model.detect(x, **limits)):
            assert len(wanted.boxes) == 9
            np.testing.assert_allclose(found[images == number], wanted.boxes, atol=1e-3)
            np.testing.assert_allclose(scores[images == number], wanted.scores, atol=1e-5)


def test_what_litert_of_a_keras_model_lacks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="boxes='outputs' for a Keras detector"):
        foveate.export(detector(), tmp_path / "a.tflite", (1, 64, 96, 3), boxes="decoded")
    monkeypatch.setattr(keras_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="pip install tensorflow"):
        foveate.export(network(), tmp_path / "a.tflite", (1, 24, 30, 3))
    assert [*tmp_path.iterdir()] == []


def test_a_model_without_inputs_is_refused(tmp_path: Path) -> None:
    class Own(keras.Model):
        pass

    with pytest.raises(UsageError, match="functional or sequential"):
        foveate.export(Own(), tmp_path / "a.onnx", (1, 24, 30, 3))


def test_the_other_process_imports_nothing_of_this_folder_and_takes_long_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the file of this folder')")
    monkeypatch.chdir(tmp_path)
    script = "import json, sys\nprint(len(json.load(sys.stdin)['notes']['of']))"
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten()])
    subject = keras_models.subject_of_keras(model)
    found = keras_models._elsewhere("jax", script, model, subject, tmp_path / "a", notes={"of": "é" * 200_000})
    assert found == "200000"
