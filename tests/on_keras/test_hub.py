"""A Keras model shares its attention, or all its weights, as a repository."""

from pathlib import Path

import numpy as np
import pytest

import foveate.keras as fk
from foveate.errors import DataError, UsageError
from foveate.hub import from_pretrained, keras_weights, push_to_hub, save_pretrained
from hub.test_repository import Push
from on_keras.test_attach import out, picture, small


def test_the_attention_comes_back_in_a_new_model(tmp_path: Path) -> None:
    host = small()
    model = fk.attach(host, "cbam", reduction=2, start="paper")
    folder = save_pretrained(model, tmp_path / "made")
    x = picture(2, 8, 8, 3)
    np.testing.assert_allclose(out(from_pretrained(folder, host), x), out(model, x), rtol=1e-6)
    assert "block1_conv2" in (folder / "README.md").read_text().replace("&#95;", "_")


def test_a_whole_model_goes_to_the_hub_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Push(tmp_path / "hub", monkeypatch)
    host = small()
    host.set_weights([1.5 * value for value in host.get_weights()])
    model = fk.attach(host, "cbam", reduction=2, start="paper")
    push_to_hub(model, "me/keras", whole=True)
    x, fresh = picture(2, 8, 8, 3), small()
    np.testing.assert_allclose(out(from_pretrained("me/keras", fresh), x), out(model, x), rtol=1e-6)
    path = tmp_path / "hub/me/keras/keras.safetensors"
    with pytest.raises(UsageError, match="a host with the"):
        keras_weights.load(fresh, path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="sha256"):
        from_pretrained("me/keras", fresh)
