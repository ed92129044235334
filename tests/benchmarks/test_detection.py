"""The benchmark of YOLOv4-tiny, on images too small for meaningful times."""

from typing import Any

import pytest
import torch
from benchmarks.harness import check
from benchmarks.options import Options

import foveate.kernels
from benchmarks import detection
from foveate.kernels import ops

pytestmark = [
    pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning"),
]
OPTIONS = Options(
    rounds=1, compile=False, mechanisms=("se", "channel")
)  # channel attention is not one of the compared mechanisms


def test_every_part_is_measured() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    [record] = detection.measure(OPTIONS, size=32, batches=(2,), counts=(50, 100))
    assert check(record) == []
    assert record["name"] == "detection"
    assert set(record["packages"]) == {"torch", "onnxruntime"}
    network, predict, spread, crowded = record["results"]
    assert list(network["calls"]) == [
        "plain",
        "plain again",
        "not fused",
        "copies",
        "se",
        "onnxruntime",
        "se, its sites",
    ]
    assert network["calls"]["plain"]["ratio"] == 1
    assert ("se" in network["failed"]) is (ops.unavailable is not None)
    assert list(predict["calls"]) == ["whole", "letterbox", "network", "decoding and NMS", "all but the network"]
    assert predict["kept"] <= predict["candidates"]
    assert [spread["kind"], crowded["kind"]] == ["spread", "crowded"]
    for growth in (spread, crowded):
        assert list(growth["calls"]) == list(growth["kept"]) == list(growth["peak_mb"]) == ["50", "100"]
        assert growth["kept"]["100"] <= 100
        assert 0 < growth["peak_mb"]["50"] < 10


def test_a_copy_is_a_new_map() -> None:
    x = torch.rand(1, 3, 32, 32)
    site: Any = detection._copying(detection._model()).sites["up"]
    y = site(x)
    assert torch.equal(x, y)
    assert x.data_ptr() != y.data_ptr()


def test_a_site_without_a_kernel_is_reported() -> None:
    x = torch.rand(1, 3, 32, 32)
    with foveate.kernels.using("off"):
        call, reason = detection._sites(detection._model("se"), x)
        found: Any = call()
    assert reason == "FOVEATE_KERNELS=off"
    assert [tuple(y.shape) for y in found] == [(1, 256, 2, 2), (1, 512, 1, 1), (1, 128, 2, 2)]


def test_nothing_is_timed_that_computes_something_else() -> None:
    expected = (torch.ones(2), torch.full((2,), 100.0))
    detection._check("same", (torch.ones(2) + 5e-5, torch.full((2,), 100.005)), expected)
    with pytest.raises(AssertionError, match="other"):
        detection._check("other", (torch.ones(2) + 2e-4, torch.full((2,), 100.0)), expected)
    with pytest.raises(ValueError, match="argument 2"):
        detection._check("one output", (torch.ones(2),), expected)
