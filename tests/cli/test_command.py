import dataclasses
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from foveate.cli import console, doctor, option_names, run
from foveate.cli.failures import Terminated, as_options, describe
from foveate.errors import DataError, UsageError
from foveate.experiment.options import StudyOptions

VERBS = ("study", "train", "val", "predict", "explain", "list", "plan", "doctor", "sample-data")
HEAVY = ("torch", "numpy", "matplotlib", "PIL", "scipy", "yaml", "timm", "lightning", "jinja2", "sklearn")


@pytest.fixture(autouse=True)
def _quiet_again() -> Iterator[None]:
    """Restore logging and warnings to those of pytest."""
    import warnings

    handlers, level, show = logging.getLogger().handlers[:], logging.getLogger("foveate").level, warnings.showwarning
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger("foveate").setLevel(level)
    warnings.showwarning = show


def loaded_by(*arguments: str) -> set[str]:
    code = f"import sys\nfrom foveate.cli import run\nrun({list(arguments)})\n"
    code += f"print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_nothing_heavy() -> None:
    assert loaded_by("--help") == set()
    assert loaded_by("study", "--help") == set()


def test_the_probe_sees_what_a_verb_loads() -> None:
    assert loaded_by("plan", "resnet8", "--config", __file__) == {"yaml"}


def test_help_names_every_verb(foveate: Any) -> None:
    shown = foveate("--help")
    assert shown.code == 0
    assert all(f" {verb} " in shown.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_help(foveate: Any, verb: str) -> None:
    shown = foveate(verb, "--help")
    assert shown.code == 0
    assert "--json" in shown.out
    assert "--debug" in shown.out


def test_version(foveate: Any) -> None:
    assert foveate("--version").out == "0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "code", "what", "fix"),
    [
        (["styudy"], 2, "styudy", "foveate --help"),
        (["study", "--epoch", "3"], 2, "--epoch", "foveate study --help"),
        (["study", "--seeds", "many"], 2, "a range such as 3..20 within 2..50; received many", "--seeds"),
        (["study", "--seeds", "0", "--dry-run"], 2, "seeds: from 1 to 1000", "--seeds"),
        (["study", "--margin", "0", "--dry-run"], 2, "margin: above 0 and at most 100 points", "--margin"),
        (["study", "--budget", "soon"], 2, "a time such as 2h, 90m or 1h30m; received 'soon'", "hours"),
        (["study", "--attention", "cbma", "--dry-run"], 2, "received 'cbma'", "did you mean 'cbam'"),
        (["study", "--start", "cold", "--dry-run"], 2, "identity, paper or identity,paper", "--start"),
        (
            ["study", "nowhere", "--dry-run"],
            3,
            "a folder of images at nowhere; received no such folder",
            "check the path",
        ),
        (["study", "a", "--data", "b", "--dry-run"], 2, "one data folder", "leave one of them out"),
        (["study", "--resume"], 2, "a study to resume", "--resume"),
        (["train", "--attention", "se,cbam"], 2, "one attention to train", "foveate study"),
        (
            ["train", "--attention-lr", "0.1"],
            2,
            "attention to train at --attention-lr; received --attention none",
            "add --attention",
        ),
        (["study", "--attention-lr", "0", "--dry-run"], 2, "--attention-lr: a positive number", "--attention-lr"),
        (["train", "--name", "../out", "--train-count", "64"], 2, "--name as the name of a folder", "--project"),
        (["plan"], 2, "Missing argument", "foveate plan --help"),
        (["plan", "resnet9"], 2, "the name of a model; received 'resnet9'", "resnet"),
        (["plan", "yolov4tiny"], 2, "the name of a model; received 'yolov4tiny'", "did you mean 'yolov4-tiny'"),
        (["plan", "yolov4-tiny", "--channels", "1"], 2, "channels only with --task classify", "leave it out"),
        (["plan", "yolov4-tiny", "--imgsz", "100"], 2, "multiples of 32", "resize to 96 x 96"),
        (["train", "--model", "yolov4-tiny"], 2, "a classifier; received 'yolov4-tiny', a detector", "--task detect"),
        (["train", "--canvas", "40", "--imgsz", "48"], 2, "canvas equal to imgsz", "--canvas"),
        (["train", "--task", "detect", "--imgsz", "33"], 2, "multiple of 32", "416"),
        (
            ["plan", "resnet8", "--where", "stages"],
            2,
            "'stages', which matches no module",
            "use --where stage or --where",
        ),
        (["plan", "resnet8", "--where", "lyaer*"], 2, "'lyaer*'", "use --where layer3.0 or --where layer"),
        (
            ["plan", "resnet8", "--replace", "SE"],
            2,
            "a module of the class 'SE'",
            "leave replace out to add attention",
        ),
        (["plan", "resnet8", "--attention", "se cbam"], 2, "received 'se cbam'", "separate them with commas: se,cbam"),
        (
            ["plan", "timm/vit_tiny_patch16_224"],
            2,
            "a convolutional network, which --where residual is made for",
            "choose a convolutional",
        ),
        (
            ["plan", "torchvision/vgg11", "--where", "residual"],
            2,
            "--where residual; received a model in which none",
            "use --where stage or",
        ),
        (["train", "--project", __file__], 2, "--project as a folder that can be made", "another --project"),
        (["study", "--project", f"{__file__}/more"], 2, f"{__file__} is a file", "another --project"),
        (["train", "--pretrained"], 2, "--pretrained with a local file of weights", "--model efficientnet-lite0"),
        (["train", "--pretrained", "--epochs", "1"], 2, "received --pretrained without a file", "--weights FILE"),
        (
            ["train", "--weights", "nowhere.pt", "--train-count", "64"],
            2,
            "nowhere.pt, which is not a file",
            "efficientnet-lite0",
        ),
        (["plan", "resnet8", "--attention", "se:reduction=0"], 2, "reduction > 0", "16"),
        (["plan", "resnet8", "--attention", "cbam:kernel_size=4"], 2, "an odd kernel size", "use 3, 5 or 7"),
        (["val", "--run", "nowhere"], 2, "nowhere, no folder", "foveate train"),
        (["predict", "."], 2, "--run", "foveate predict --help"),
    ],
)
def test_an_error_is_one_line_and_its_fix_another(
    foveate: Any, arguments: list[str], code: int, what: str, fix: str
) -> None:
    done = foveate(*arguments)
    errors = [line for line in done.err.splitlines() if line.startswith(("Error: ", "Fix: "))]
    assert done.code == code
    assert [line.partition(":")[0] for line in errors] == ["Error", "Fix"]
    assert what in errors[0]
    assert fix in errors[1]
    assert "Traceback" not in done.err
    assert done.out == ""


def test_debug_shows_the_traceback(foveate: Any) -> None:
    done = foveate("plan", "resnet9", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err
    assert "in _resolve" in done.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError(expected="a", received="b", do="c"), 2),
        (DataError(expected="a", received="b", do="c"), 3),
        (MemoryError(), 6),
        (torch.OutOfMemoryError("CUDA out of memory"), 6),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: "
                "not enough memory: you tried to allocate 8 bytes"
            ),
            6,
        ),
        (RuntimeError("anything else"), 1),
        (OSError(28, "No space left on device"), 1),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
        (BrokenPipeError(), 0),
        (SystemExit(1), 0),
    ],
)
def test_exit_codes(error: BaseException, code: int) -> None:
    assert describe(error, ()).exit_code == code


def test_every_option_of_the_library_is_told_as_one_of_the_command_line() -> None:
    options = option_names()
    fields = {field.name for field in dataclasses.fields(StudyOptions)} & options
    assert {"attention_lr", "data_seed", "multi_scale", "on_defect", "where"} <= fields
    assert {"top_k", "max_det"} <= options, "those of prediction"
    for name in options:
        assert as_options(f"use {name}='x y'", options) == f"use --{name.replace('_', '-')} 'x y'"
        expected = f"--{name.replace('_', '-')}" if "_" in name else name
        assert as_options(f"{name}: at least 1, as in a/{name}", options) == f"{expected}: at least 1, as in a/{name}"
    assert as_options("attention_lr and kernel_size='a'", ()) == "attention_lr and kernel_size='a'"


def test_memory_that_really_runs_out_is_reported_as_such() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert describe(raised.value, ()).exit_code == 6


@pytest.mark.parametrize(("raised", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.reliability(16)
def test_signals_end_a_command_with_their_code(
    foveate: Any, monkeypatch: pytest.MonkeyPatch, raised: int, code: int
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets its background jobs ignore it
    monkeypatch.setattr(doctor, "examine", lambda: os.kill(os.getpid(), raised))
    try:
        assert foveate("doctor").code == code
    finally:
        signal.signal(signal.SIGINT, interrupt)
    assert signal.getsignal(signal.SIGTERM) is before


def test_no_colour_without_a_terminal(foveate: Any) -> None:
    assert "\x1b" not in foveate("list").out
    assert "\x1b" not in foveate("plan", "resnet9").err


@pytest.mark.parametrize(("no_colour", "styled"), [("", True), ("1", False)])
def test_no_color_is_honoured_on_a_terminal(monkeypatch: pytest.MonkeyPatch, no_colour: str, styled: bool) -> None:
    for name, value in {"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": no_colour}.items():
        monkeypatch.setenv(name, value)
    assert (console.stdout().no_color is False) is styled


def test_plan_counts_the_published_parameters(foveate: Any) -> None:
    done = foveate("plan", "timm/resnet18", "--attention", "se,cbam", "--start", "paper", "--imgsz", 64, "--json")
    plans = json.loads(done.out)["plans"]
    assert [plan["host_parameters"] + plan["parameters"] for plan in plans] == [11_778_592, 11_779_392]


def test_plan_as_a_table(foveate: Any) -> None:
    done = foveate("plan", "resnet8", "--attention", "se:reduction=8", "--where", "stage", "--imgsz", 32)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[1] == "reduction=8, bias=True, norm=False"
    assert [line.split()[0] for line in lines[3:6]] == ["layer1.0", "layer2.0", "layer3.0"]
    assert lines[6].startswith("3 sites")
    assert not any(line != line.rstrip() for line in lines)


def test_plan_says_what_attention_replaces(foveate: Any) -> None:
    done = foveate("plan", "timm/mobilenetv3_small_050", "--attention", "eca", "--replace", "SqueezeExcite")
    lines = done.out.splitlines()
    assert lines[0] == "eca in the place of SqueezeExcite, identity start"
    assert lines[3].split()[0] == "blocks.0.0.se"
    assert lines[12].startswith("9 sites")
    assert lines[13].startswith("SqueezeExcite removed")
    assert "(-" in lines[14]


def test_plan_of_a_detector(foveate: Any) -> None:
    done = foveate("plan", "yolov4-tiny", "--attention", "se,cbam", "--json")
    plans = json.loads(done.out)["plans"]
    assert [site["name"] for site in plans[0]["sites"]] == ["sites.feat2", "sites.up", "sites.feat1"]
    assert [site["shape"][1:] for site in plans[0]["sites"]] == [[512, 13, 13], [128, 26, 26], [256, 26, 26]]
    assert {plan["host_parameters"] for plan in plans} == {6_056_606}  # as published, with COCO's 80 classes
    small = foveate("plan", "yolov4-tiny", "--where", "sites.up", "--imgsz", 320, "--classes", 3)
    assert small.code == 0
    assert small.out.splitlines()[3].split()[:2] == ["sites.up", "128×20×20"]


def test_doctor(foveate: Any) -> None:
    found = json.loads(foveate("doctor", "--json").out)
    assert found["machine"]["cores"] >= 1
    assert {one["name"]: one["ok"] for one in found["packages"]}["torch"]
    assert "AVX" in foveate("doctor").out or found["machine"]["capability"] not in ("AVX2", "AVX512")


def test_doctor_survives_a_broken_torch(monkeypatch: pytest.MonkeyPatch, foveate: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    done = foveate("doctor")
    assert done.code == 0
    assert "does not import" in done.out
    assert "pip install --force-reinstall torch" in done.out


def test_a_broken_pipe_is_no_error() -> None:
    code = "import sys; from foveate.cli import main; main(['list'])"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert b"Traceback" not in process.communicate()[1]


def test_run_takes_any_sequence() -> None:
    assert run(("doctor", "--help")) == 0


def test_sample_data_names_both_folders(foveate: Any, tmp_path: Path) -> None:
    done = foveate("sample-data", ".")
    assert (done.code, done.last) == (0, str(tmp_path / "boxes"))
    assert str(tmp_path / "photos") in done.out
    assert foveate("sample-data", ".", "--json").code == 0
    (tmp_path / "photos" / "test" / "circle" / "00.png").write_bytes(b"mine")
    assert (foveate("sample-data", ".").code, foveate("sample-data").code) == (2, 2)
    (tmp_path / "file").touch()
    assert foveate("sample-data", "file").code != 0


def test_names_of_mechanisms_may_be_in_capitals(foveate: Any) -> None:
    plans = json.loads(foveate("plan", "resnet8", "--attention", "CBAM,Se:reduction=8,ECA-paper", "--json").out)[
        "plans"
    ]
    assert [(plan["mechanism"], plan["start"]) for plan in plans] == [
        ("cbam", "identity"),
        ("se", "identity"),
        ("eca", "paper"),
    ]
    assert (
        foveate("plan", "resnet8", "--attention", "CBMA").err.rpartition("Fix:   ")[2].startswith("did you mean 'cbam'")
    )


@pytest.mark.parametrize("verb", ["study", "train"])
def test_a_data_yaml_names_its_folder(foveate: Any, verb: str) -> None:
    assert foveate("sample-data", ".").code == 0
    ends = (
        "--task",
        "detect",
        "--resume",
        "--project",
        "none",
    )  # ends after the data are opened: there is nothing to resume
    for given in (("boxes/data.yaml",), ("--data", "boxes/data.yaml")):
        done = foveate(verb, *given, *ends)
        assert (done.code, "to resume" in done.err) == (2, True), done.err
    assert foveate(verb, "boxes/none.yaml", *ends).code == 3


def test_damaged_photos_are_named_or_dropped(foveate: Any) -> None:
    assert foveate("sample-data", ".").code == 0
    for name in ("train/circle/00.png", "test/square/00.png"):
        Path("photos", name).write_bytes(b"damaged")
    study = ("study", "photos", "--model", "resnet8", "--imgsz", 32, "--attention", "se", "--dry-run")
    done = foveate(*study)
    assert (done.code, "2 that are not: train/circle/00.png" in done.err) == (3, True)
    assert "or leave them out: --on-defect drop" in done.err
    done = foveate(*study, "--on-defect", "drop")
    assert (done.code, "photos: 2 images that cannot be read, left out: train/circle/00.png" in done.err) == (0, True)
