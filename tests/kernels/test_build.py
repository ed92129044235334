"""Compiling the kernels by hand and at install, and installing where they cannot be compiled."""

import importlib.util
import shutil
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from foveate.kernels import build, ops
from foveate.kernels.build import BuildError

COMPILER = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler (c++)")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the path of the library in this test, where an old library exists."""
    path = tmp_path / "_cpu.so"
    path.write_bytes(b"of before")
    monkeypatch.setattr(build, "LIBRARY", path)
    return path


def compile_text(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str, *, strict: bool = False) -> None:
    source = folder / "small.cpp"
    source.write_text(text)
    monkeypatch.setattr(build, "SOURCES", [source])
    build.build(strict=strict)


@COMPILER
def test_a_library_takes_its_place_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path) -> None:
    compile_text(monkeypatch, tmp_path, 'extern "C" int seven() { return 7; }')
    assert library.read_bytes().startswith(b"\x7fELF")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_cpu.so", "small.cpp"]


@COMPILER
def test_code_that_does_not_compile_leaves_the_library_of_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path
) -> None:
    with pytest.raises(BuildError, match=r"Expected kernels that compile"):
        compile_text(monkeypatch, tmp_path, "no C++")
    assert library.read_bytes() == b"of before"


@COMPILER
def test_strictly_a_warning_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path) -> None:
    warned = "int unused(int value) { return 0; }"
    compile_text(monkeypatch, tmp_path, warned)
    with pytest.raises(BuildError):
        compile_text(monkeypatch, tmp_path, warned, strict=True)


@pytest.mark.parametrize("package", ["torch", "setuptools"])
def test_without_what_it_takes(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    with pytest.raises(BuildError, match=rf"(?s)Received an environment without {package}.*Do: pip install {package}"):
        build.build()


def test_without_a_compiler_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["build"])
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    assert build.main() == BuildError.exit_code
    said = capsys.readouterr().err
    assert "no no-such-compiler" in said
    assert "install g++ (Debian: apt-get install g++)" in said
    assert "Traceback" not in said


def test_an_old_torch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.0"))
    with pytest.raises(BuildError, match=r"Received torch 2\.9\.0"):
        build.build()


@COMPILER
def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "LIBRARY", tmp_path / "missing" / "_cpu.so")
    with pytest.raises(BuildError, match="Expected a folder that can be written"):
        compile_text(monkeypatch, tmp_path, "int seven() { return 7; }")


@COMPILER
def test_what_was_compiled_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["build"])
    source = tmp_path / "small.cpp"
    source.write_text("int seven() { return 7; }")
    monkeypatch.setattr(build, "SOURCES", [source])
    monkeypatch.setattr(ops, "unavailable", "it does not load")
    assert build.main() == BuildError.exit_code
    assert "Expected kernels that load\nReceived it does not load" in capsys.readouterr().err


@pytest.fixture
def hook(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", root / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def initialised(hook: ModuleType, root: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the changes of the hook to the build, and its warnings."""
    said: list[str] = []
    app = type("App", (), {"display_warning": staticmethod(said.append)})
    data: dict[str, Any] = {"artifacts": []}
    hook.KernelsBuildHook(str(root), {}, None, None, "", "wheel", app).initialize("standard", data)
    return data, said


def test_a_wheel_with_kernels_is_one_platforms(hook: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook, "_compile", lambda root: None)
    monkeypatch.setattr(hook.sysconfig, "get_platform", lambda: "linux-x86_64")
    data, said = initialised(hook, root)
    assert data == {"artifacts": ["src/foveate/kernels/_cpu.so"], "pure_python": False, "tag": "py3-none-linux_x86_64"}
    assert said == []


def test_without_a_compiler_an_install_goes_on_with_one_warning(
    hook: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    data, said = initialised(hook, root)
    assert data == {"artifacts": []}
    assert said == [
        "Foveate is built without its CPU kernels: no no-such-compiler on the PATH; "
        "compile later: python -m foveate.kernels.build"
    ]


def test_not_even_a_missing_interpreter_stops_an_install(
    hook: ModuleType, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook.sys, "executable", "/no/such/python")
    data, (said,) = initialised(hook, root)
    assert data == {"artifacts": []}
    assert "/no/such/python" in said


def tree(root: Path, folder: Path) -> Path:
    """Return a copy of the files that a distribution is built from, with a compiled library."""
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(root / name, folder)
    shutil.copytree(root / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "src/foveate/kernels/_cpu.so").write_bytes(b"compiled once")
    return folder


def test_a_wheel_without_kernels_is_pure_and_has_their_source(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    (wheel,) = WheelBuilder(str(tree(root, tmp_path))).build(directory=str(tmp_path / "dist"), versions=["standard"])
    assert wheel.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    assert {"foveate/kernels/build.py", "foveate/kernels/cpu/ops.cpp", "foveate/kernels/cpu/kernels.h"} <= {*names}
    assert not [name for name in names if name.endswith(".so")]


def test_a_source_distribution_can_compile_them(root: Path, tmp_path: Path) -> None:
    (archive,) = SdistBuilder(str(tree(root, tmp_path))).build(directory=str(tmp_path / "dist"), versions=["standard"])
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames()}
    assert {
        "hatch_build.py",
        "pyproject.toml",
        "src/foveate/kernels/cpu/ops.cpp",
        "src/foveate/kernels/build.py",
    } <= names
    assert not [name for name in names if name.endswith(".so")]


@pytest.mark.slow
@COMPILER
def test_a_wheel_with_kernels_has_them(root: Path, tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(tree(root, tmp_path))).build(directory=str(tmp_path / "dist"), versions=["standard"])
    assert "-py3-none-linux" in wheel
    with zipfile.ZipFile(wheel) as opened:
        assert opened.read("foveate/kernels/_cpu.so").startswith(b"\x7fELF")
        assert b"Root-Is-Purelib: false" in opened.read(
            next(name for name in opened.namelist() if name.endswith("WHEEL"))
        )
