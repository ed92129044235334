"""The benchmark of networks baked for inference, on a small picture."""

from benchmarks.options import Options

import bench_inference
from benchmarks import inference


def test_attached_and_baked_networks_are_compared_and_shown() -> None:
    options = Options(rounds=2, compile=False, mechanisms=("se",))
    cases = (("resnet18", "residual"), ("mobilenetv2_050", inference.DEPTHWISE))
    (record,) = inference.measure(options, cases=cases, batches=(1,), size=32, runtimes=())
    small, depthwise = record["results"]
    plain = ["plain host", "plain host again", "plain host, baked", "se", "se, baked"]
    assert list(small["calls"]) == [*plain, "se, timm"]
    assert list(depthwise["calls"]) == plain
    assert small["over_baked"]["plain host, baked"]["ratio"] == 1.0
    page = "\n".join(bench_inference.lines(record))
    assert "**resnet18, residual, batch 1, 32 px**" in page
    assert "| se |" in page
