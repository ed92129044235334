"""Every notebook of the documentation runs from its first cell to its last, here with one epoch of training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import docs_notebooks

SMALL = {"first-map.ipynb": ("epochs=40", "epochs=1")}


def program(notebook: Path) -> str:
    """The code cells as one Python program: `!command` runs it, `%pip` is left out, and matplotlib shows nothing."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = ["import matplotlib, shlex, subprocess", "matplotlib.use('agg')"]
    for line in "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines():
        if line.startswith("!"):
            line = f"subprocess.run(shlex.split({line[1:]!r}), check=True)"
        if not line.startswith("%pip "):
            lines.append(line)
    return "\n".join(lines) + "\n"


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False)


def test_each_is_run_here(root: Path) -> None:
    assert {path.name for path in (root / "docs").rglob("*.ipynb")} == SMALL.keys()


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(root: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    text, (given, small) = program(root / "docs" / name), SMALL[name]
    assert text.count(given) == 1
    result = run(text.replace(given, small), tmp_path)
    assert result.returncode == 0, result.stderr
    assert "circle {'circle': 0." in result.stdout
    assert list(tmp_path.glob("runs/train/*/weights/best.safetensors"))


def test_a_cell_that_fails_is_noticed(tmp_path: Path) -> None:
    cells = [{"cell_type": "code", "source": [line]} for line in ("%pip install x", "!python -V\n", "1 / 0")]
    notebook = tmp_path / "wrong.ipynb"
    notebook.write_text(json.dumps({"cells": [*cells, {"cell_type": "markdown", "source": ["no code"]}]}))
    assert "ZeroDivisionError" in run(program(notebook), tmp_path).stderr


def test_no_notebook_is_committed_with_its_outputs(root: Path) -> None:
    for name in SMALL:
        cells = json.loads((root / "docs" / name).read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


def test_the_page_of_a_notebook_has_its_text_its_code_and_a_link(root: Path) -> None:
    page = docs_notebooks.page(root / "docs/first-map.ipynb")
    assert page.startswith("# From install to a first map\n\n[Download this notebook](first-map.ipynb)")
    assert "```python\n!foveate sample-data samples\n```" in page
    assert page.count("```") == 2 * page.count("```python")
