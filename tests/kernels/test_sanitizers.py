"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, without torch: `sanitize/driver.cpp` over ugly shapes."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import get_cxx_compiler

from foveate.kernels import build
from kernels.cases import INSTRUCTION_SETS

DRIVER = Path(__file__).with_name("sanitize") / "driver.cpp"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-ftrivial-auto-var-init=pattern"]
FLAGS = [*(flag for flag in build.FLAGS if flag not in ("-O3", "-g0")), "-Og", "-g1", "-Werror", "-pthread", *SANITIZERS]


def sanitized(instruction_set: str, folder: Path) -> Path:
    """Compile the driver with one set of kernels, each file in a process of its own."""
    compiler = [*shlex.split(get_cxx_compiler()), *FLAGS, f"-I{build.FOLDER / 'cpu'}", f"-DKERNELS={instruction_set}_kernels"]
    objects = {folder / f"{source.stem}.o": source for source in (DRIVER, build.FOLDER / "cpu" / f"{instruction_set}.cpp")}
    running = [
        subprocess.Popen([*compiler, "-c", source, "-o", to], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for to, source in objects.items()
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "".join(said)
    subprocess.run([*compiler, *objects, "-o", folder / "driver"], check=True)
    return folder / "driver"


def run(driver: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # leaks are looked for by tracing the process, which containers forbid
    return subprocess.run([driver, *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(shutil.which(shlex.split(get_cxx_compiler())[0]) is None, reason=f"needs the C++ compiler {get_cxx_compiler()}")
@pytest.mark.parametrize(
    "instruction_set", [*(pytest.param(name, marks=pytest.mark.slow) for name in INSTRUCTION_SETS[:-1]), INSTRUCTION_SETS[-1]]
)
def test_no_stray_access_and_nothing_undefined(instruction_set: str, tmp_path: Path) -> None:
    driver = sanitized(instruction_set, tmp_path)
    for memory in ("heap", "pages"):
        planted = run(driver, memory)
        assert planted.returncode != 0
        assert "ERROR: AddressSanitizer" in planted.stderr
        assert ("SEGV" in planted.stderr) == (memory == "pages")
    result = run(driver)
    assert (result.returncode, result.stdout) == (0, f"{instruction_set} passed\n"), result.stderr
