"""Tests of the kernels skip where they are not built, so one test must not: where they can be compiled, they are there."""

import shlex
import shutil

import pytest
from torch.utils.cpp_extension import get_cxx_compiler

from foveate.kernels import ops


def test_the_kernels_are_built_where_a_compiler_is() -> None:
    compiler = shlex.split(get_cxx_compiler())[0]
    if shutil.which(compiler) is None:
        pytest.skip(f"needs the C++ compiler {compiler}")
    assert ops.load() is None
