"""Every format: the same network, its file run again in its own runtime."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import foveate
from foveate.errors import MissingExtra
from foveate.exporting.formats import FORMATS, named, run_file

MODULES = {"onnx": "onnxruntime", "openvino": "openvino", "torch": "torch", "litert": "litert_torch"}


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), foveate.attention("cbam", 16, start="paper"), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(16, 5)).eval()


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_each_format(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(MODULES[name]) is None:
        with pytest.raises(MissingExtra, match=r'pip install "foveate\[litert\]"'):
            foveate.export(model(), tmp_path / "a.tflite", (1, 3, 20, 24))
        assert [*tmp_path.iterdir()] == []
        pytest.skip(f"{MODULES[name]} is not installed: it has an environment of its own")
    made = named(name)
    done = foveate.export(model(), tmp_path / f"a{made.SUFFIX}", (1, 3, 20, 24))
    assert done.record["format"] == name
    assert len(done.record["checks"]) == (4 if made.DYNAMIC else 1)
    assert done.difference < 1e-5
    expected = {f"a{suffix}" for suffix in (made.SUFFIX, *made.COMPANIONS)} | {f"a{made.SUFFIX}.json"}
    assert {path.name for path in tmp_path.iterdir()} == expected
    x = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        np.testing.assert_allclose(run_file(done.path)([x.numpy()])[0], model()(x).numpy(), atol=1e-5)
    assert sum(done.record["operators"].values()) > 5
