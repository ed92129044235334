"""Compile the C++ kernels: the build hook does it at install, `python -m foveate.kernels.build` does it by hand."""

import argparse
import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from foveate.errors import FoveateError, UsageError
from foveate.files import write_whole
from foveate.kernels.library import COMMAND, FOLDER, LIBRARY, OLDEST_TORCH

SOURCES = sorted((FOLDER / "cpu").glob("*.cpp"))
FLAGS = [
    *("-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *(
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
    ),  # never -ffast-math: the kernels must pass NaN and infinity on
    "-DTORCH_TARGET_VERSION=0x020a000000000000",  # the library runs with torch 2.10 and later
]


class BuildError(UsageError):
    """The kernels cannot be compiled here."""


def build(*, strict: bool = False) -> Path:
    """Compile the kernels and write the library file in one step; with `strict` every warning is an error.

    Raises BuildError without torch, setuptools or a C++ compiler, when compiling fails, or when the folder cannot be
    written.
    """
    _check_packages()
    from setuptools import Distribution
    from torch.utils import cpp_extension

    _check_compiler(cpp_extension.get_cxx_compiler())
    headers = [f"-isystem{path}" for path in cpp_extension.include_paths()]  # no warnings about torch's headers
    extension = cpp_extension.CppExtension(
        LIBRARY.stem,
        [str(source) for source in SOURCES],
        extra_compile_args=[*FLAGS, *headers, *(["-Werror"] if strict else [])],
        py_limited_api=True,
    )
    options = {"use_ninja": cpp_extension.is_ninja_available(), "no_python_abi_suffix": True}
    compiler = cpp_extension.BuildExtension.with_options(**options)
    with tempfile.TemporaryDirectory() as work:
        command = compiler(Distribution({"name": LIBRARY.stem, "ext_modules": [extension]}))
        command.build_lib = command.build_temp = work
        try:
            command.ensure_finalized()
            command.run()
            compiled = next(Path(work).glob("*.so")).read_bytes()
        except Exception as error:
            do = "see the compiler's message above; without kernels the plain operations run"
            raise BuildError(expected="kernels that compile", received=" ".join(str(error).split()), do=do) from error
    try:
        write_whole(LIBRARY, compiled)
    except OSError as error:
        raise BuildError(
            expected="a folder that can be written", received=f"{FOLDER}: {error}", do="install as the folder's owner"
        ) from error
    return LIBRARY


def main() -> int:
    """Compile the kernels, load the library, and print the result in one line; return the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Compile Foveate's CPU kernels.")
    parser.add_argument("--strict", action="store_true", help="treat every compiler warning as an error")
    arguments = parser.parse_args()
    try:
        library = build(strict=arguments.strict)
        from foveate.kernels import ops

        if reason := ops.load():
            raise BuildError(
                expected="kernels that load", received=reason, do="report this with the output of foveate doctor"
            )
    except FoveateError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"Compiled {library}; {ops.instruction_set()} runs here.")
    return 0


def _check_packages() -> None:
    expected = f"torch {OLDEST_TORCH} or later and setuptools, to compile the kernels"
    for name in ("torch", "setuptools"):
        if importlib.util.find_spec(name) is None:
            raise BuildError(
                expected=expected, received=f"an environment without {name}", do=f"pip install {name}, then {COMMAND}"
            )
    import torch

    if torch.__version__ < OLDEST_TORCH:
        raise BuildError(expected=expected, received=f"torch {torch.__version__}", do=f"update torch, then {COMMAND}")


def _check_compiler(name: str) -> None:
    if os.name == "nt":
        raise BuildError(
            expected="Linux or macOS, to compile the kernels", received="Windows", do="use the plain operations, or WSL"
        )
    if shutil.which(shlex.split(name)[0]) is None:
        raise BuildError(
            expected="a C++ compiler, to compile the kernels",
            received=f"no {name} on the PATH",
            do=f"install g++ (Debian: apt-get install g++) or set CXX to another compiler, then {COMMAND}",
        )


if __name__ == "__main__":
    sys.exit(main())
