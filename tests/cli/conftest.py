"""Runs the command line in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from foveate.cli import run
from foveate.experiment import data as experiment_data


@dataclass(frozen=True)
class Outcome:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line of the result."""
        return self.out.rstrip().splitlines()[-1]


Foveate = Callable[..., Outcome]


@pytest.fixture
def opened_anew() -> None:
    """Data are opened once in each process by folder name, and each test has a folder of that name."""
    experiment_data._open.cache_clear()


@pytest.fixture
def foveate(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Foveate:
    """Run `foveate ARGUMENTS...` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> Outcome:
        code = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(code, str(out), str(err))

    return command
