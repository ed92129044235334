"""A Keras model shares its attention as a repository."""

from pathlib import Path

import numpy as np
import pytest

import foveate.keras as fk
from foveate.errors import UsageError
from foveate.hub import from_pretrained, save_pretrained
from on_keras.test_attach import out, picture, small


def test_the_attention_comes_back_in_a_new_model(tmp_path: Path) -> None:
    host = small()
    model = fk.attach(host, "cbam", reduction=2, start="paper")
    folder = save_pretrained(model, tmp_path / "made")
    x = picture(2, 8, 8, 3)
    np.testing.assert_allclose(out(from_pretrained(folder, host), x), out(model, x), rtol=1e-6)
    assert "block1_conv2" in (folder / "README.md").read_text().replace("&#95;", "_")
    with pytest.raises(UsageError, match="whole=False"):
        save_pretrained(model, tmp_path / "whole", whole=True)
