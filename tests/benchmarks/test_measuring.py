"""The benchmarks, on maps too small for meaningful times."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmarks.calls import PlainOps, call, feature_map, plain, prepare, read, timm_attention
from benchmarks.harness import ROOT, check
from benchmarks.options import LAYOUTS, MEASURES, MECHANISMS, Options
from benchmarks.references import REFERENCES

import foveate
from benchmarks import calls, every_mechanism, explorer, growth, in_network, kernels, site, whole_models
from foveate.kernels import dispatch, why_not

RUN = """
import json
from benchmarks import explorer
from benchmarks.options import Options
[record] = explorer.measure(Options(rounds=1), images=3)
print(json.dumps(record))
"""
TINY = Options(rounds=1, compile=False, shapes=((1, 16, 4, 4),), dtypes=("float32",))
SHAPE = (2, 32, 5, 4)


@pytest.mark.parametrize("measure", ["forward", "training"])
def test_each_mechanism_is_compared_with_its_peers(measure: str) -> None:
    [record] = kernels.measure(replace(TINY, measures=(measure,), layouts=("NCHW",)))
    assert check(record) == []
    assert record["name"] == f"kernels_float32_{measure}"
    assert [result["mechanism"] for result in record["results"]] == list(MECHANISMS)
    fits = why_not(foveate.attention("se", 16), torch.ones(1, 16, 4, 4)) is None
    for result in record["results"]:
        assert ("foveate" in result["calls"]) is fits
        assert ("foveate" in result["failed"]) is not fits
        assert {"clone", "read", "plain"} <= set(result["calls"])
        assert ("timm" in result["calls"]) == (result["mechanism"] in calls.TIMM_NAMES)
        assert result["calls"]["clone"]["ratio"] == 1
        assert result["bytes"] == 4 * 16 * 16


def test_every_mechanism_is_compared_with_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(every_mechanism, "REFERENCES", {name: REFERENCES[name] for name in ("se", "simam", "eca")})
    shapes: dict[str, Any] = dict.fromkeys(MEASURES, ((1, 32, 8, 8),))
    for record in every_mechanism.measure(replace(TINY, layouts=("NCHW",)), shapes):
        assert check(record) == []
        cells = {result["mechanism"]: result["calls"] for result in record["results"]}
        assert set(cells["se"]) == {"reference", "foveate", "timm"}
        assert cells["se"]["reference"]["ratio"] == 1


def test_the_peers_of_a_mechanism_with_a_kernel_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(module: Any) -> Any:
        if isinstance(module.module, REFERENCES["simam"]):  # pyright: ignore[reportArgumentType]
            raise RuntimeError("no compiler\nand more")
        return module

    monkeypatch.setattr(calls, "compiled", compiled)
    monkeypatch.setattr(every_mechanism, "REFERENCES", {name: REFERENCES[name] for name in ("se", "simam", "nam")})
    shapes: dict[str, Any] = {"forward": ((1, 32, 8, 8),)}
    options = replace(TINY, compile=True, measures=("forward",), layouts=("NCHW",))
    [record] = every_mechanism.measure(options, shapes)
    timed = {result["mechanism"]: (set(result["calls"]), result["failed"]) for result in record["results"]}
    assert timed == {
        "nam": ({"reference", "foveate"}, {}),
        "se": ({"reference", "foveate", "timm", "reference compiled", "timm compiled"}, {}),
        "simam": ({"reference", "foveate"}, {"reference compiled": "RuntimeError: no compiler"}),
    }


def test_a_compiler_that_fails_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(module: Any) -> Any:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(calls, "compiled", fails)
    options = replace(TINY, compile=True, measures=("forward",), layouts=("NCHW",), mechanisms=("se",))
    [record] = kernels.measure(options)
    [result] = record["results"]
    assert result["failed"]["plain compiled"] == "RuntimeError: no compiler"
    assert "plain" in result["calls"]


@pytest.mark.browser
@pytest.mark.usefixtures("browser")  # skips where there is none
def test_the_explorer_is_opened_with_all_its_images_and_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer, "STAGES", ((6, 8, 1), (3, 16, 1)))
    html = explorer.page_of(2, 5)
    data = json.loads(html.partition('id="data">')[2].partition("</script>")[0])
    assert [len(arm["layers"]) for arm in data["arms"]] == [2, 2]
    assert all(arm["cams"] and arm["layers"][1]["channels"][0]["features"] for arm in data["arms"])
    assert explorer.LAYERS == 16
    in_a_process = [sys.executable, "-c", RUN]
    done = subprocess.run(in_a_process, cwd=ROOT, check=True, capture_output=True, text=True)  # playwright runs once
    record = json.loads(done.stdout.splitlines()[-1])
    assert check(record) == []
    assert [(result["arms"], result["shown"]) for result in record["results"]] == [(1, 3), (3, 3)]
    assert 0 < record["results"][0]["bytes"] < record["results"][1]["bytes"]


def test_whole_models_are_compared_with_the_plain_host() -> None:
    options = replace(TINY, mechanisms=("cbam",), layouts=("NCHW",))
    eager, training = whole_models.measure(options, host="resnet18", size=32)
    assert check(eager) == []
    assert eager["name"] == "whole_models_eager"
    assert training["results"] == []  # it is timed only in channels_last
    [result] = eager["results"]
    assert set(result["calls"]) == {
        *("plain host", "plain host again", "foveate cbam", "foveate cbam, identity start", "plain cbam", "timm cbam"),
    }
    assert result["targets"] == {"cbam": 1.06}


def test_growth_has_a_result_for_each_point() -> None:
    series = {"batch": ((1, 16, 4, 4), (2, 16, 4, 4)), "pixels": ((1, 16, 4, 4),)}
    [record] = growth.measure(replace(TINY, mechanisms=("se", "cbam")), series=series)
    assert check(record) == []
    assert len(record["results"]) == 3 * 2 * 2
    assert list(record["results"][0]["calls"]) == ["clone", "se", "cbam"]


def test_a_site_has_a_time_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "REPEATED", 1)
    [record] = site.measure(replace(TINY, mechanisms=("se", "coordinate")))
    assert check(record) == []
    assert [result["mechanism"] for result in record["results"]] == ["se", "coordinate"]
    assert all(len(result["calls"]) == 9 for result in record["results"])


def test_inside_a_network_each_step_runs_at_each_site(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")
    monkeypatch.setattr(in_network, "HOST", "resnet26")
    monkeypatch.setattr(in_network, "SHAPE", (1, 3, 32, 32))
    [record] = in_network.measure(replace(TINY, rounds=1, mechanisms=("eca",)))
    assert check(record) == []
    [result] = record["results"]
    assert result["sites"] == 8
    assert list(result["calls"]) == list(in_network.STEPS)
    assert all(one["quick"] > 0 for one in result["calls"].values())
    assert list(result["host"]) == list(in_network.PARTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_training_step_leaves_the_gradients_of_one_step(layout: str) -> None:
    x = feature_map(SHAPE, layout).requires_grad_()
    module = prepare(foveate.attention("cbam", 32), x, layout, "training")
    step = call(module, x, "training")
    step()
    assert x.grad is not None
    first = x.grad
    assert all(parameter.grad is not None for parameter in module.parameters())
    step()
    assert x.grad is not first
    torch.testing.assert_close(x.grad, first)
    assert module.training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_read_takes_every_byte_once(layout: str, dtype: str) -> None:
    x = feature_map(SHAPE, layout, dtype)
    assert x.is_contiguous(memory_format=calls.memory_format(layout))
    before: Any = read(x)()
    x[1, 31, 4, 3] = -64
    after: Any = read(x)()
    assert after < before - 1 if dtype == "float32" else after != before
    if dtype == "float32":
        torch.testing.assert_close(after, x.sum())


@pytest.mark.parametrize("name", MECHANISMS)
def test_plain_never_runs_a_kernel_and_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a kernel ran")

    module, x = plain(name, 32).eval(), feature_map(SHAPE, "NCHW")
    expected = module.attention(x)
    monkeypatch.setattr(dispatch, "run", refused)
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)


def test_plain_operations_differ_in_nothing_but_the_dispatch() -> None:
    assert [name for name in vars(PlainOps) if not name.startswith("_")] == ["apply"]


def test_timm_gives_a_module_for_each_name() -> None:
    for name in calls.TIMM_NAMES:
        assert timm_attention(name, 32)(torch.ones(1, 32, 4, 4)).shape == (1, 32, 4, 4)
