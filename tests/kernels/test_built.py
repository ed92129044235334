"""Where the kernels can be compiled, they must exist and be new; the other tests skip where they are missing."""

import shlex
import shutil

import pytest
from torch.utils.cpp_extension import get_cxx_compiler

from foveate.kernels import build, ops


def test_the_kernels_are_built_where_a_compiler_is() -> None:
    compiler = shlex.split(get_cxx_compiler())[0]
    if shutil.which(compiler) is None:
        pytest.skip(f"needs the C++ compiler {compiler}")
    assert ops.load() is None
    newest = max(path.stat().st_mtime for path in (build.FOLDER / "cpu").iterdir())
    assert build.LIBRARY.stat().st_mtime >= newest, f"the sources have changed since: {build.COMMAND}"
