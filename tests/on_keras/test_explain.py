"""`foveate.explain` shows the attention of Keras models, on every backend."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foveate
import foveate.keras as fk
from foveate.errors import UsageError
from on_keras.steps import numpy
from on_keras.test_record import network

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
    assert of_array.notes == []
    np.testing.assert_allclose(
        of_file.arms["CBAM"]["gate/one/spatial"], of_array.arms["CBAM"]["gate/one/spatial"], atol=1e-5
    )
    assert (of_file.arms["CBAM"]["images"] == pixels).all()
    with pytest.raises(UsageError, match="where boxes are given"):
        foveate.explain(model, tmp_path, boxes=[[]])
    with pytest.raises(UsageError, match="Grad-CAM, which is computed for PyTorch"):
        foveate.explain(model, pixels, grad_cam=True)
