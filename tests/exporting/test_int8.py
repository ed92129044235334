"""INT8: the network is quantised, attention is not, and the record says what that changed."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import foveate
from foveate.errors import DataError, UsageError
from foveate.exporting import quantise
from foveate.exporting.formats import Runner, named


def model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    made = nn.Sequential(*layers, nn.Linear(256, 4)).eval()
    foveate.attach(made, "cbam", where="1", start="paper", example=(1, 3, 12, 14))
    return made


@pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_network_is_quantised_and_attention_is_not(name: str, tmp_path: Path) -> None:
    images = torch.rand(24, 3, 12, 14, generator=torch.Generator().manual_seed(0))
    measured: list[float] = []

    def measure(run: Runner) -> float:
        measured.append(float(run([images[:1].numpy()])[0].sum()))
        return measured[-1]

    made = named(name)
    path = tmp_path / f"a{made.SUFFIX}"
    done = foveate.export(model(), path, (1, 3, 12, 14), dynamic=False, images=images, int8=True, measure=measure)
    int8: dict[str, Any] = done.record["int8"]
    assert done.difference < 1e-5  # of the file in float
    assert 1e-5 < int8["difference"] < 0.1
    assert int8["agreement"] > 0.9
    assert (int8["before"], int8["after"]) == (measured[0], measured[1])
    assert measured[0] != measured[1]
    assert len(int8["in_float"]) >= 5
    quantisers = {"onnx": "QuantizeLinear", "openvino": "FakeQuantize"}
    operators = done.record["operators"]
    # of input, convolution and linear layer; the six layers of attention would have more than ten
    assert 2 <= operators[quantisers[name]] <= 6
    assert f"{int8['agreement']:.1%} of results are the same" in str(done)


def test_too_few_images_and_formats_without_a_quantiser_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="8 images or more"):
        foveate.export(model(), tmp_path / "a.onnx", (1, 3, 12, 14), int8=True, images=torch.rand(3, 3, 12, 14))
    with pytest.raises(UsageError, match="a format with a quantiser"):
        foveate.export(model(), tmp_path / "a.pt2", (1, 3, 12, 14), int8=True, images=torch.rand(8, 3, 12, 14))
    assert [*tmp_path.iterdir()] == []


def test_data_of_a_run_may_be_a_file(tmp_path: Path) -> None:
    opened: list[Any] = []
    options = SimpleNamespace(data=tmp_path / "data.yaml", planted=None)
    trained = SimpleNamespace(options=options, open_data=lambda: opened.append(options.data))
    run: Any = SimpleNamespace(run=trained)
    with pytest.raises(DataError, match=r"data of the run at .*data\.yaml"):
        quantise.run_data(run)
    options.data.touch()
    quantise.run_data(run)
    assert opened == [options.data]


COUNTED = """
import sys, types

sent = []

class Telemetry:
    def __init__(self, *_, **__):
        sent.append("made")

    def __getattr__(self, name):
        return lambda *_, **__: sent.append(name)

sys.modules["openvino_telemetry"] = types.SimpleNamespace(Telemetry=Telemetry)
"""
EXPORT = """
import torch
import foveate

images = torch.rand(8, 3, 12, 14)
foveate.export(torch.nn.Conv2d(3, 4, 3), sys.argv[1], (1, 3, 12, 14), dynamic=False, images=images, int8=True)
"""


@pytest.mark.slow
def test_nncf_sends_no_statistics_of_use(tmp_path: Path) -> None:
    for code, sent in (("import nncf", "True"), (EXPORT, "False"), (f"import nncf; sent.clear()\n{EXPORT}", "False")):
        command = [sys.executable, "-c", f"{COUNTED}\n{code}\nprint(bool(sent))", str(tmp_path / "a.xml")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == sent, code
