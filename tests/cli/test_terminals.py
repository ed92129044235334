"""Output on any terminal: with another encoding, without cursor control, with completion."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Foveate
from foveate.cli import console, run, study
from foveate.cli.progress_display import Lines, Live, show_progress
from report import records

VERBS = ("study", "train", "val", "predict", "list", "plan", "doctor", "sample-data")


def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "foveate", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)


def test_help_and_errors_are_printed_in_ascii() -> None:
    done = started("train", "--help", PYTHONIOENCODING="ascii", COLUMNS="60")
    assert (done.returncode, done.stderr, done.stdout.isascii()) == (0, b"", True)
    done = started("größe", PYTHONIOENCODING="ascii")
    assert (done.returncode, b"'gr\\xf6\\xdfe'" in done.stderr) == (2, True)


def printed(encoding: str, say: Callable[[Any], object], what: Any) -> str:
    """Return the text that is printed to a stdout of this encoding."""
    written = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(written, encoding, write_through=True)):
        console.print_in_any_encoding()
        say(what)
        return written.getvalue().decode(encoding)


@pytest.mark.parametrize(("encoding", "shape"), [("ascii", "16x8x8"), ("cp1252", "16×8×8")])
def test_a_plan_is_printed_in_any_encoding(encoding: str, shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(encoding, run, ["plan", "resnet8", "--imgsz", "8"])
    assert (shape in text, capsys.readouterr().err) == (True, "model 'resnet8': built in\n")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_study_shows_its_table_in_any_encoding(encoding: str) -> None:
    text = printed(encoding, study.show, {**records.results(), "advice": "größe 尺寸"})
    assert "CBAM, identity start" in text
    assert "\\u5c3a\\u5bf8" in text
    assert ("±" in text, "+/-" in text) == (encoding == "cp1252", encoding == "ascii")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_json_stays_json_in_any_encoding(encoding: str) -> None:
    record = {"name": "größe × 尺寸 \udc80"}
    text = printed(encoding, console.say_json, record)
    assert text.isascii()
    assert json.loads(text) == record


@pytest.mark.usefixtures("opened_anew")
def test_the_path_of_the_report_is_printed_even_if_the_table_fails(
    foveate: Foveate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text("{}")
    monkeypatch.setattr("foveate.studies.run.run_study", lambda *asked, **more: tmp_path)
    done = foveate("study")
    assert (done.code, done.out) == (1, f"{tmp_path / 'report.html'}\n")


def test_the_module_is_the_command_and_h_is_help() -> None:
    done = started("-h")
    assert done.returncode == 0
    assert all(f" {verb} ".encode() in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_help(foveate: Foveate, verb: str) -> None:
    assert foveate(verb, "-h").out == foveate(verb, "--help").out != ""


def test_a_shell_completes_verbs_and_options() -> None:
    asked = {"_FOVEATE_COMPLETE": "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": "foveate pr"}
    assert started(**asked).stdout.split() == [b"predict"]
    found = started(**{**asked, "COMP_CWORD": "2", "COMP_WORDS": "foveate train --att"}).stdout
    assert found.split() == [b"--attention", b"--attention-lr"]


def test_the_script_for_a_shell_is_shown(foveate: Foveate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: "bash")
    done = foveate("--show-completion")
    assert (done.code, "_FOVEATE_COMPLETE" in done.out) == (0, True)


@pytest.mark.parametrize(("terminal", "kind"), [("xterm", Live), ("dumb", Lines), (None, Lines)])
def test_bars_are_only_for_an_interactive_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: str | None, kind: type
) -> None:
    for name in ("FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    if terminal:
        monkeypatch.setenv("TERM", terminal)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(show_progress()) is kind


ROW = {"epoch": 1, "train_loss": 1.0, "val_score": 0.5, "seconds": 2.0}


@pytest.mark.parametrize(
    ("trials", "finished", "line"),
    [(4, 0, "starting workers"), (4, 2, "starting workers"), (4, 4, ""), (1, 0, "training the first epoch")],
)
def test_before_the_first_epoch_progress_shows_what_happens(
    trials: int, finished: int, line: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    Lines().started(tmp_path, trials, finished)
    assert capsys.readouterr().err.splitlines()[1:] == ([line] if line else [])
    with (shown := Live()):
        shown.started(tmp_path, trials, finished)
        waiting = [bar.description for bar in shown.bars.tasks if bar.total is None]
        assert waiting == ([line] if line else [])
        shown.epoch_done("se", 0, ROW, 3)
        assert all(bar.total is not None for bar in shown.bars.tasks)
