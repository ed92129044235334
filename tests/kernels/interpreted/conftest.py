"""The Triton kernels on the CPU, by Triton's interpreter. `../test_triton.py` runs this folder in a process of its own.

TRITON_INTERPRET must be set before the first import of Triton, and would change torch.compile for other tests.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = [] if INTERPRETED else ["*.py"]

if INTERPRETED:
    from triton.runtime import interpreter  # pyright: ignore[reportMissingImports]

    _patch = interpreter._patch_lang_tensor

    def _patch_for_numpy(tensor: Any, scope: Any) -> None:
        """Let a number of the interpreter, an array of one element, be an index; NumPy 2.4 no longer converts one."""
        _patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = _patch_for_numpy


@pytest.fixture(autouse=True)
def _memory_is_poisoned() -> Iterator[None]:
    """Fill new memory of torch with NaN until it is written."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    with np.errstate(all="ignore"):  # NumPy would warn of every NaN and infinity that a kernel makes
        yield
    torch.use_deterministic_algorithms(False)
