"""What `foveate doctor` says of the form of the kernels that runs, and of faster ones."""

import json
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from foveate.cli import doctor
from foveate.kernels import chosen, dispatch, fastest, ops
from foveate.kernels.gpu import support

AVX2 = dict.fromkeys(("avx2", "fma3", "bmi2"), True)
AVX512 = AVX2 | dict.fromkeys(("avx512_f", "avx512_bw", "avx512_vl", "avx512_dq"), True)
OLD, LAPTOP, SERVER, NEW = {}, AVX2, AVX512, AVX512 | {"avx512_bf16": True}


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[fastest.Missing]]:
    """Return a function that gives the missing forms on a processor, where one instruction set runs."""

    def missing(processor: Mapping[str, bool], runs: str, wish: str = "", gpu: bool = False) -> list[fastest.Missing]:
        monkeypatch.setattr(chosen, "choice", None)
        monkeypatch.setattr(ops, "unavailable", None)
        monkeypatch.setattr(ops, "instruction_set", lambda: runs)
        monkeypatch.setattr(fastest, "_capabilities", lambda: {"architecture": "x86_64", **processor})
        monkeypatch.setenv("FOVEATE_CPU_ISA", wish)
        return fastest.missing(gpu)

    return missing


@pytest.mark.parametrize(
    ("processor", "runs", "beyond"),
    [
        (OLD, "baseline", "avx2"),
        (LAPTOP, "avx2", "avx512"),
        (LAPTOP | {"avx512_f": True}, "avx2", "avx512"),
        (SERVER, "avx512", "avx512_bf16"),
    ],
)
def test_a_form_that_the_processor_lacks(on: Any, processor: Mapping[str, bool], runs: str, beyond: str) -> None:
    assert on(processor, runs) == [(beyond, "this processor does not have it", fastest.BRINGS[beyond])]


def test_nothing_is_missing_where_the_widest_form_runs(on: Any) -> None:
    assert on(NEW, "avx512_bf16") == []
    assert on({"architecture": "aarch64", "neon": True}, "neon") == []
    assert on({"architecture": "riscv64"}, "baseline") == []


def test_a_narrower_form_was_wished_for(on: Any) -> None:
    [one] = on(NEW, "avx2", wish="avx2")
    assert (one.form, one.why) == ("avx512_bf16", "FOVEATE_CPU_ISA=avx2 chose avx2")
    assert one.brings == f"{fastest.BRINGS['avx512']} {fastest.BRINGS['avx512_bf16']}"
    [one] = on(NEW, "avx512")
    assert (one.form, one.why) == ("avx512_bf16", "they were compiled without it: compile them again")


def test_a_gpu_has_kernels_where_triton_is(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "unavailable", None)
    assert [(one.form, one.why) for one in on(NEW, "avx512_bf16", gpu=True)] == [("gpu", dispatch.ON_GPU_ASKED)]
    monkeypatch.setattr(chosen, "choice", "triton")
    assert [(one.form, one.brings) for one in fastest.missing(gpu=True)] == [
        ("avx512_bf16", "Maps on the CPU are refused.")
    ]
    monkeypatch.setattr(support, "unavailable", "Triton is not installed")
    assert ("gpu", "Triton is not installed") in [(one.form, one.why) for one in fastest.missing(gpu=True)]
    monkeypatch.setattr(chosen, "choice", "cpu")
    assert [one.why for one in fastest.missing(gpu=True)] == ["FOVEATE_KERNELS=cpu"]


def test_without_kernels_it_says_what_they_would_bring(on: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    on(NEW, "avx512")
    monkeypatch.setattr(ops, "unavailable", "they are not compiled")
    assert fastest.running() is None
    assert fastest.missing(gpu=False) == [("avx512_bf16", "they are not compiled", fastest.BRINGS["any"])]
    monkeypatch.setattr(fastest, "_capabilities", dict)  # an older torch does not say
    assert [one.form for one in fastest.missing(gpu=False)] == ["kernels"]
    for choice in ("off", "reference", "unknown"):
        monkeypatch.setattr(chosen, "choice", choice)
        assert fastest.running() is None
        assert fastest.missing(gpu=False)[0].why == f"FOVEATE_KERNELS={choice}"


def test_doctor_shows_them(on: Any, foveate: Callable[..., Any]) -> None:
    on(NEW, "avx2", wish="avx2")
    shown = json.loads(foveate("doctor", "--json").out)["forms"]
    assert shown["running"] == "avx2"
    assert [one["form"] for one in shown["missing"]] == ["avx512_bf16"]
    told = " ".join(foveate("doctor").out.split())
    assert "The kernels run with avx2. They do not run with avx512_bf16: FOVEATE_CPU_ISA=avx2 chose avx2." in told
    assert doctor._sentences({"running": None, "missing": []}) == ["No kernel runs on the CPU."]


def test_the_ratio_is_the_published_one(root: Path) -> None:
    record = json.loads((root / "benchmarks" / "results" / "kernels_float32_training.json").read_text())
    ratios: dict[str, list[float]] = {}
    for cell in record["results"]:
        calls = cell["calls"]
        ratios.setdefault(cell["mechanism"], []).append(calls["plain"]["ratio"] / calls["foveate"]["ratio"])
    medians = [statistics.median(of) for of in ratios.values()]
    assert [str(round(end(medians))) for end in (min, max)] == re.findall(r"\d+", fastest.BRINGS["any"])
