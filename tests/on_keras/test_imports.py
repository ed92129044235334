"""Each framework loads only where it is used, in fresh processes."""

import subprocess
import sys

import keras
import pytest

BACKEND = keras.backend.backend()


def loaded(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.skipif(BACKEND == "torch", reason="Keras itself runs on torch here")
def test_foveate_keras_loads_no_torch() -> None:
    code = "import numpy, foveate.keras\ny = foveate.keras.CBAM()(numpy.ones((1, 8, 8, 16), 'float32'))"
    assert "torch" not in loaded(code)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras itself runs on torch here")
def test_attaching_loads_no_torch() -> None:
    host = "keras.applications.MobileNetV3Small(weights=None, input_shape=(32, 32, 3))"
    code = f"import keras, foveate.keras\nfoveate.keras.attach({host}, 'eca')"
    assert "torch" not in loaded(code)


def test_foveate_torch_loads_no_keras() -> None:
    assert "keras" not in loaded("import foveate, foveate.torch\nfoveate.attention('cbam', 16)")


def test_foveate_alone_loads_neither() -> None:
    assert not {"torch", "keras"} & loaded("import foveate")
