"""The stubs for editors and type checkers are up to date with the catalogue, and refuse a wrong option."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import stubs

SNIPPET = """\
import foveate
from foveate.torch import CBAM, CrossAttention
from torch import zeros

reveal_type(CBAM(8, reduction=4)(zeros(1, 8, 4, 4)))
reveal_type(foveate.attention("cbam", 256, reduction=16))
reveal_type(foveate.attention(str(), 256))
CrossAttention(8)(zeros(1, 8, 4, 4), zeros(1, 8, 2, 2))
CBAM(8, reducton=4)
CBAM(8, order="backwards")
CBAM("8")
foveate.attention(8, 8)
"""


@pytest.mark.parametrize("face", stubs.FACES, ids=lambda face: face.package)
def test_the_stub_is_fresh(face: stubs.Face) -> None:
    assert face.path.read_text(encoding="utf-8") == stubs.stub(face), "run python tools/stubs.py"


def test_check_says_when_it_is_stale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["stubs.py", "--check"])
    assert stubs.main() == 0
    for face in stubs.FACES:
        (tmp_path / face.package).mkdir()
        shutil.copy(stubs.ROOT / face.package / "__init__.py", tmp_path / face.package)
    monkeypatch.setattr(stubs, "ROOT", tmp_path)
    assert stubs.main() == 1
    assert "run python tools/stubs.py" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["stubs.py"])
    assert stubs.main() == 0
    assert all(face.path.read_text(encoding="utf-8") == stubs.stub(face) for face in stubs.FACES)


def test_a_type_checker_sees_the_classes_and_their_options(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET, encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(snippet)]
    report = json.loads(subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout)
    found = [
        (entry["range"]["start"]["line"] + 1, entry["severity"], entry["message"])
        for entry in report["generalDiagnostics"]
    ]
    revealed = {line: message.rpartition(" is ")[2] for line, severity, message in found if severity == "information"}
    assert revealed == {5: '"Tensor"', 6: '"CBAM"', 7: '"Attention"'}
    assert {line for line, severity, _ in found if severity == "error"} == {9, 10, 11, 12}
