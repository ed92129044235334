"""The kernels under sanitizers, without torch: `sanitize/driver.cpp` on unusual shapes."""

import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from torch.utils.cpp_extension import get_cxx_compiler

from foveate.kernels import build
from kernels.cases import INSTRUCTION_SETS

pytestmark = pytest.mark.skipif(
    shutil.which(shlex.split(get_cxx_compiler())[0]) is None, reason=f"needs the C++ compiler {get_cxx_compiler()}"
)

DRIVER = Path(__file__).with_name("sanitize") / "driver.cpp"
# A little optimisation, for speed; uninitialised variables hold a pattern.
FLAGS = [flag for flag in build.FLAGS if flag not in ("-O3", "-g0")] + [
    "-Og",
    "-g1",
    "-Werror",
    "-pthread",
    "-ftrivial-auto-var-init=pattern",
]


def test_no_access_beyond_a_guard_page(tmp_path: Path) -> None:
    """Run without sanitizers, which take a minute to compile."""
    driver = compiled("baseline", [], tmp_path)
    assert run(driver, "pages").returncode == -signal.SIGSEGV
    passes(driver, "baseline", "guarded")


@pytest.mark.slow
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_no_stray_access_and_nothing_undefined(instruction_set: str, tmp_path: Path) -> None:
    driver = sanitized(instruction_set, "address,undefined", tmp_path)
    for memory in ("heap", "pages"):
        planted = run(driver, memory)
        assert planted.returncode != 0
        assert "ERROR: AddressSanitizer" in planted.stderr
        assert ("SEGV" in planted.stderr) == (memory == "pages")
    passes(driver, instruction_set)


@pytest.mark.slow
def test_no_races_among_threads(tmp_path: Path) -> None:
    instruction_set = INSTRUCTION_SETS[-1]
    driver = sanitized(instruction_set, "thread", tmp_path)
    planted = run(driver, "race")
    assert planted.returncode != 0
    assert "ThreadSanitizer: data race" in planted.stderr
    passes(driver, instruction_set)


def sanitized(instruction_set: str, sanitizers: str, folder: Path) -> Path:
    return compiled(
        instruction_set, [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"], folder
    )


def compiled(instruction_set: str, options: list[str], folder: Path) -> Path:
    """Compile the driver with one set of kernels, each file in a separate process."""
    compiler = [
        *shlex.split(get_cxx_compiler()),
        *FLAGS,
        *options,
        f"-I{build.FOLDER / 'cpu'}",
        f"-DKERNELS={instruction_set}_kernels",
    ]
    objects = {
        folder / f"{source.stem}.o": source for source in (DRIVER, build.FOLDER / "cpu" / f"{instruction_set}.cpp")
    }
    running = [
        subprocess.Popen(
            [*compiler, "-c", source, "-o", to], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for to, source in objects.items()
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], "".join(said)
    subprocess.run([*compiler, *objects, "-o", folder / "driver"], check=True)
    return folder / "driver"


def run(driver: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The search for leaks traces the process, which containers forbid; a race must end the program.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run([driver, *arguments], env=environment, capture_output=True, text=True)


def passes(driver: Path, instruction_set: str, *arguments: str) -> None:
    result = run(driver, *arguments)
    assert (result.returncode, result.stdout) == (0, f"{instruction_set} passed\n"), result.stderr
