"""The kernels for ARM, compiled for that processor and run by an emulator: the numbers of the baseline on this one."""

import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch.utils.cpp_extension import get_cxx_compiler

from foveate.kernels import build
from kernels.test_sanitizers import DRIVER, FLAGS

CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


def numbers(compiler: list[str], instruction_set: str, folder: Path, emulator: list[str]) -> NDArray[np.float32]:
    """Compile the driver with one set of kernels and return all numbers that it prints."""
    folder.mkdir()
    source = build.FOLDER / "cpu" / f"{instruction_set}.cpp"
    command = [*compiler, *FLAGS, "-static", f"-I{build.FOLDER / 'cpu'}", f"-DKERNELS={instruction_set}_kernels"]
    done = subprocess.run([*command, DRIVER, source, "-o", folder / "driver"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = subprocess.run([*emulator, folder / "driver", "numbers"], capture_output=True, check=True).stdout
    return np.frombuffer(printed, np.float32)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which(CROSS) and shutil.which(EMULATOR)),
    reason=f"needs {CROSS} and {EMULATOR} (Debian: g++-aarch64-linux-gnu, qemu-user)",
)
def test_neon_gives_the_numbers_of_the_baseline(tmp_path: Path) -> None:
    """They differ in fused multiply-adds alone, and so in the last bits, of bfloat16 too."""
    here = numbers(shlex.split(get_cxx_compiler()), "baseline", tmp_path / "here", [])
    there = numbers([CROSS], "neon", tmp_path / "there", [EMULATOR])
    assert here.size == there.size > 1e6
    assert np.isfinite(here).all()
    distance = np.abs(here - there) / (1e-2 + np.abs(here))
    assert np.mean(distance > 1e-5) < 1e-3
    assert distance.max() < 0.01  # a rounding of bfloat16 is 0.008
    assert (here != there).any(), "both are the same code"
