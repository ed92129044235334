"""`foveate bench`: models and files side by side."""

import json
from typing import Any

import pytest

from cli.conftest import Foveate
from foveate.cli import bench
from foveate.cli.bench import COMPILED, EAGER

MODEL = ("resnet8", "--classes", 4, "--imgsz", 32, "--threads", 1, "--seconds", 0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace the processes that measure memory, and the compiler."""
    seen: list[Any] = []
    monkeypatch.setattr(bench, "_memory_of", lambda form: seen.append(form) or 5_000_000)
    return seen


def test_a_model_twice(foveate: Foveate, quick: list[Any]) -> None:
    done = foveate("bench", "resnet8", *MODEL, "--attention", "eca")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["Form", "resnet8"]
    assert lines[2].startswith("resnet8 (2)")
    assert "not distinguishable" in lines[1]
    assert all("5.00 MB" in line for line in lines[1:3])
    assert lines[3].startswith("Medians of 15 rounds with 99% intervals, batch 1, 1 thread.")
    assert [form.how for form in quick] == [EAGER, EAGER]


def test_a_compiler_that_fails_leaves_its_form_out(
    foveate: Foveate, quick: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = bench._warm

    def fails(form: Any) -> Any:
        if form.how == COMPILED:
            raise RuntimeError("no compiler\nand more")
        return warm(form)

    monkeypatch.setattr(bench, "_warm", fails)
    monkeypatch.setattr("foveate.exporting.formats.FORMATS", ())
    done = foveate("bench", *MODEL, "--compare", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert [(one["name"], one["form"]) for one in record["results"]] == [(f"resnet8, {EAGER}", EAGER)]
    assert record["failed"] == {f"resnet8, {COMPILED}": "RuntimeError: no compiler"}
    assert all(one["low"] <= one["ratio"] <= one["high"] for one in record["results"])
    assert record["environment"]["packages"]["torch"]


@pytest.mark.slow
def test_every_form_of_a_model(foveate: Foveate) -> None:
    done = foveate("bench", *MODEL, "--compare", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert {one["form"] for one in record["results"]} == {EAGER, COMPILED, "onnx", "openvino", "torch"}
    assert record["failed"] == {}
    assert all(one["memory"] > 100_000 for one in record["results"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("nowhere.onnx",), "nowhere"), (("resnet8", "--batch", 0), "--batch"), ((), "FILE_OR_MODEL")],
)
def test_what_cannot_work_is_refused(foveate: Foveate, arguments: tuple[Any, ...], told: str) -> None:
    done = foveate("bench", *arguments)
    assert done.code == 2
    assert told in done.err
