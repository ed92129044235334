"""Every example runs with small arguments."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

SMALL = {"pixel_labels.py": "--width 2 --canvas 26 --scenes 48 --epochs 2"}


def run(root: Path, folder: Path, name: str, arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "examples" / name), *arguments.split()]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_each_has_its_small_arguments(root: Path) -> None:
    assert {path.name for path in (root / "examples").glob("*.py")} == SMALL.keys()


@pytest.mark.parametrize("block", ["residual_cbam", pytest.param("none", marks=pytest.mark.slow)])
def test_pixel_labels(root: Path, tmp_path: Path, block: str) -> None:
    result = run(root, tmp_path, "pixel_labels.py", f"{SMALL['pixel_labels.py']} --block {block}")
    assert result.returncode == 0, result.stderr
    pattern = r"^(before|after): digit against background IoU 0\.\d+, mean over \d+ labels IoU 0\.\d+$"
    assert re.findall(pattern, result.stdout, re.MULTILINE) == ["before", "after"]
    losses = [float(loss) for loss in re.findall(r"loss (\S+)", result.stdout)]
    assert losses[1] < losses[0]
    with Image.open(tmp_path / "runs/pixel_labels.png") as picture:
        assert picture.size == (8 * 28 * 3, 3 * 28 * 3)
