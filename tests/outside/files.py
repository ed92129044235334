"""A mechanism that is not in the catalogue: its source and its TOML lie here, its golden data are made."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from torch import Tensor, nn

import golden

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NAME = "gauge"
ENTRY_POINT = f"[foveate.mechanisms]\n{NAME} = {NAME}:RowGauge\n"


class Theirs(nn.Module):
    """The code of its authors, in plain layers."""

    def __init__(self, channels: int, bias: bool = True):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 16, 1, bias=bias)
        self.bn = nn.BatchNorm2d(channels // 16)
        self.excite = nn.Conv2d(channels // 16, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.excite(self.bn(self.squeeze(x.mean(3, keepdim=True))).relu()).sigmoid()


def write(source: Path, data: Path) -> str:
    """Write the source and the TOML in one folder, the golden data in another; return the name of the class."""
    for ending in ("py", "toml"):
        shutil.copy(HERE / f"{NAME}.{ending}", source)
    golden.write(data / f"{NAME}.npz", {"default": Theirs(32), "no_bias": Theirs(32, False)}, [(2, 32, 3, 4)])
    return f"{source / NAME}.py:RowGauge"


def install(folder: Path) -> None:
    """Let the folder be an installed package that names the mechanism by an entry point."""
    about = folder / "gauges-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: gauges\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(ENTRY_POINT, encoding="utf-8")


def run(*command: str, root: Path = ROOT, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python in a checkout, with its source and perhaps a folder more on the path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), *filter(None, [path])])}
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=root, env=environment
    )


def passed_tests(*arguments: str, root: Path = ROOT, path: str = "") -> set[str]:
    """Run pytest, and return the names of the test functions. Raises AssertionError unless all of them passed."""
    done = run("-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments, root=root, path=path)
    verdicts = dict(re.findall(r"^tests/\S+::(\w+)\S*.* (PASSED|FAILED|SKIPPED|ERROR)", done.stdout, re.MULTILINE))
    said = done.stdout[-4000:] + done.stderr[-2000:]
    assert done.returncode == 0, said
    assert set(verdicts.values()) == {"PASSED"}, said
    return set(verdicts)
