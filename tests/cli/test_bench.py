"""`foveate bench`: models and files side by side."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.conftest import Foveate
from foveate.cli import bench
from foveate.cli.bench import COMPILED, EAGER, Form
from foveate.errors import VerificationError

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


@pytest.fixture(params=["no compiler\nand more", ""])
def no_compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the compiler fail, and return the message that the command prints."""
    warm = bench._warm

    def fails(form: Any) -> Any:
        if form.how == COMPILED:
            raise RuntimeError(request.param)
        return warm(form)

    monkeypatch.setattr(bench, "_warm", fails)
    return f"RuntimeError: {request.param.partition(chr(10))[0]}"


def test_a_compiler_that_fails_leaves_its_form_out(
    foveate: Foveate, quick: list[Any], no_compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.exporting.formats.FORMATS", ())
    done = foveate("bench", *MODEL, "--compare", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert [(one["name"], one["form"]) for one in record["results"]] == [(f"resnet8, {EAGER}", EAGER)]
    assert record["failed"] == {f"resnet8, {COMPILED}": no_compiler}
    assert all(one["low"] <= one["ratio"] <= one["high"] for one in record["results"])
    assert record["environment"]["packages"]["torch"]


def test_a_format_that_fails_leaves_its_form_out(
    foveate: Foveate, quick: list[Any], no_compiler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_export(opened: Any, format: str, folder: Any) -> Any:
        raise VerificationError(expected="a file that computes what the model does", received="another", do="report it")

    monkeypatch.setattr(bench, "_exported", no_export)
    monkeypatch.setattr("foveate.exporting.formats.FORMATS", ("onnx",))
    done = foveate("bench", *MODEL, "--compare", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert [one["form"] for one in record["results"]] == [EAGER]
    assert record["failed"] == {
        "resnet8, onnx": "VerificationError: expected a file that computes what the model does; received another",
        f"resnet8, {COMPILED}": no_compiler,
    }


def test_a_file_that_does_not_open_leaves_its_form_out_only_if_it_was_added(
    foveate: Foveate, quick: list[Any], no_compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.onnx").touch()
    monkeypatch.setattr(bench, "_exported", lambda *_: tmp_path / "a.onnx")
    monkeypatch.setattr("foveate.exporting.formats.FORMATS", ("onnx",))
    done = foveate("bench", *MODEL, "--compare", "--json")
    assert done.code == 0, done.err
    assert "UsageError: expected a file that foveate export wrote" in json.loads(done.out)["failed"]["resnet8, onnx"]
    assert foveate("bench", "a.onnx").code == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--imgsz", 40), "--imgsz for runs/a"),
        (("--attention", "se"), "--attention for runs/a"),
        (("--weights", "a.onnx", "--classes", 3, "--imgsz", 32), "--weights, --classes for runs/a"),
    ],
)
def test_options_of_a_model_are_refused_for_a_run_and_a_file(
    foveate: Foveate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[Any, ...], told: str
) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "a.onnx").touch()
    monkeypatch.setattr("foveate.experiment.run_folder.read_run", lambda _: SimpleNamespace(data={"size": 32}))
    done = foveate("bench", "runs/a", *options)
    assert (done.code, done.out) == (2, "")
    assert "a run as it was trained" in done.err
    assert told in done.err
    done = foveate("bench", "a.onnx", *options)
    assert done.code == 2
    assert ("a file as it was exported" in done.err) == (options[0] != "--imgsz")


def test_memory_is_measured_where_no_module_comes_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the json.py of the user')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "_MEMORY", "form = json.loads(sys.argv[1]); print(form['batch'] + len(sys.argv))")
    form = Form("a", "resnet8", EAGER, {}, channels=3, batch=40, threads=1)
    assert bench._memory_of(form) == 42


# torch.compile itself calls what torch says it will remove
@pytest.mark.filterwarnings(
    r"ignore:`torch\.jit\.script_method` is deprecated\. Please switch to `torch\.compile` or `torch\.export`\.$"
    ":DeprecationWarning"
)
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
