"""Forms of a model side by side: what is called, and that the interval holds."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import foveate
from foveate.errors import UsageError
from foveate.exporting import forms
from foveate.exporting.forms import file_call, measure, model_call
from work import Clock


def convolutions(count: int = 10) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(count))).eval()


def test_a_form_is_compared_with_the_first_in_the_same_rounds() -> None:
    clock = Clock()
    calls = {"first": lambda: clock.sleep(0.002), "second": lambda: clock.sleep(0.003)}
    found = measure(calls, 1.0, least=20, most=20, clock=clock)
    assert found["first"]["ratio"] == 1
    assert found["second"]["ms"] == pytest.approx(3)
    assert found["second"]["ratio"] == pytest.approx(1.5)
    assert found["second"]["low"] < 1.5 < found["second"]["high"]
    assert found["second"]["rounds"] == 20


def test_a_model_is_called_in_eval_mode_on_the_batch() -> None:
    seen: list[Any] = []

    class Host(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((tuple(x.shape), torch.is_inference_mode_enabled()))
            return x

    call = model_call(Host().eval(), (1, 3, 8, 6), 4)
    seen.clear()
    call()
    assert seen == [((4, 3, 8, 6), True)]


def test_a_file_is_called_on_the_batch_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(forms, "run_file", lambda path, threads: lambda inputs: seen.append((inputs[0].shape, threads)))
    path = tmp_path / "a.pt2"
    path.touch()
    with pytest.raises(UsageError, match=r"with its \.json beside it"):
        file_call(path, 1, None, 1)
    kind = {"dtypes": ["float32"], "channels_last": False}
    record: dict[str, Any] = {"inputs": {"images": [1, 3, 20, 24]}, "dynamic": True, **kind}
    monkeypatch.setattr(forms, "read_record", lambda _: record)
    file_call(path, 2, None, 1)()
    file_call(path, 3, 40, 2)()
    assert seen == [((2, 3, 20, 24), 1), ((3, 3, 40, 40), 2)]
    record["dynamic"] = False
    file_call(path, 1, None, 1)()
    for batch, size in ((2, None), (1, 40)):
        with pytest.raises(UsageError, match=r"the fixed input of .*, 1x3x20x24"):
            file_call(path, batch, size, 1)


@pytest.mark.parametrize(
    ("shape", "dtype", "last", "size", "asked"),
    [
        ([1, 20, 24, 3], "float32", True, 40, (2, 40, 40, 3)),
        ([1, 20, 24, 3], "float32", True, None, (2, 20, 24, 3)),
        ([1, 7], "int64", False, None, (2, 7)),
        ([1, 3, 20, 24], "float16", False, 40, (2, 3, 40, 40)),
    ],
)
def test_a_file_is_called_with_its_own_axes_and_dtype(
    shape: list[int], dtype: str, last: bool, size: int | None, asked: tuple[int, ...], monkeypatch: Any, tmp_path: Path
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(forms, "run_file", lambda *_: lambda inputs: seen.append((inputs[0].shape, inputs[0].dtype)))
    record = {"inputs": {"input": shape}, "dynamic": True, "dtypes": [dtype], "channels_last": last}
    monkeypatch.setattr(forms, "read_record", lambda _: record)
    path = tmp_path / "a.onnx"
    path.touch()
    file_call(path, 2, size, 1)()
    assert seen == [(asked, np.dtype(dtype))]


def test_a_file_with_whole_numbers_as_input_is_measured(tmp_path: Path) -> None:
    made = foveate.export(nn.Sequential(nn.Embedding(5, 4), nn.Flatten()), tmp_path / "a.pt2", torch.ones(1, 3).long())
    file_call(made.path, 2, None, 1)()
    assert made.record["dtypes"] == ["int64"]


@pytest.mark.slow
def test_memory_is_what_a_form_adds_to_a_new_process() -> None:
    code = """
import numpy
from foveate.exporting.forms import memory_rise

def make():
    kept = numpy.ones(5_000_000)
    return lambda: kept * 2

print(memory_rise(make))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 75e6 < int(done.stdout) < 95e6


@pytest.mark.slow
@pytest.mark.reliability(26)
def test_real_latencies_of_a_file_against_itself_and_against_a_slower_one(tmp_path: Path, tried: Any) -> None:
    """RELIABILITY row 26 with files; it needs an idle machine."""
    shape = (1, 16, 32, 32)
    paths = {"file": 10, "itself": 10, "slower": 12}
    for name, count in paths.items():
        foveate.export(convolutions(count), tmp_path / f"{name}.onnx", shape, dynamic=False)
    found = []
    for _ in range(100):
        calls = {name: file_call(tmp_path / f"{name}.onnx", 1, None, 1) for name in paths}
        found.append(measure(calls, 1.0))
    assert sum(one["itself"]["low"] <= 1 <= one["itself"]["high"] for one in found) >= 95
    assert sum(one["slower"]["low"] > 1 for one in found) >= 90
    assert np.median([one["slower"]["ratio"] for one in found]) > 1.1
    tried(len(found))
