"""New processes import what this one imports, and nothing that lies in the current folder."""

import subprocess
from pathlib import Path

import pytest

from foveate.new_process import python_command

CODE = "import mine; print(mine.NAME, *sys.argv[1:]); import csv; print(csv.__file__)"


def test_the_path_of_this_process_and_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        (folder / "mine.py").write_text(f"NAME = {folder.name!r}")
    for name in ("json", "csv"):
        (here / f"{name}.py").write_text("raise SystemExit('the user has a file of this name')")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(there)
    done = subprocess.run(python_command(CODE, "a b", "--c"), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    name, csv = done.stdout.splitlines()
    assert name == "there a b --c"
    assert str(here) not in csv
