"""Each framework loads only where it is used, in fresh processes."""

import inspect
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import foveate.keras
from test_public_api import PUBLIC_KERAS

BACKEND = keras.backend.backend()


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.skipif(BACKEND == "torch", reason="Keras itself runs on torch here")
def test_foveate_keras_loads_no_torch() -> None:
    code = "import numpy, foveate.keras\ny = foveate.keras.CBAM()(numpy.ones((1, 8, 8, 16), 'float32'))"
    assert "torch" not in loaded(code)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras itself runs on torch here")
def test_attaching_loads_no_torch_and_nor_do_adapters(tmp_path: Path) -> None:
    host = "x = keras.Input((8, 8, 16))\nhost = keras.Model(x, x + keras.layers.Conv2D(16, 3, padding='same')(x))"
    path = str(tmp_path / "a")
    adapter = f"fk.save_adapter(fk.attach(host, 'eca'), {path!r})\nfk.load_adapter(host, {path!r})"
    assert "torch" not in loaded(f"import keras, foveate.keras as fk\n{host}\n{adapter}")
    assert (tmp_path / "a").is_file()


def test_foveate_torch_loads_no_keras() -> None:
    assert "keras" not in loaded("import foveate, foveate.torch\nfoveate.attention('cbam', 16)")


def test_foveate_alone_loads_neither() -> None:
    assert not {"torch", "keras"} & loaded("import foveate")


def test_the_public_names_are_there_and_documented() -> None:
    assert sorted(foveate.keras.__all__) == sorted(PUBLIC_KERAS)
    for name in PUBLIC_KERAS:
        value = getattr(foveate.keras, name)
        assert callable(value), name
        assert inspect.getdoc(value), name
