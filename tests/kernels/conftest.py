from collections.abc import Callable, Iterator

import pytest
import torch

import foveate
from foveate.kernels import ops


@pytest.fixture(scope="session")
def built() -> None:
    """Skip without compiled kernels; `test_built` fails where they could be compiled but are missing."""
    reason = ops.load()
    if reason is not None:
        pytest.skip(f"no kernels: {reason}")


@pytest.fixture(scope="session")
def fill_with_nan() -> Callable[[], object]:
    """Return a function that leaves NaN in nearly all of the memory that the kernels keep for this thread."""
    module, x = foveate.attention("cbam", 32).eval(), torch.full((1, 32, 145, 145), torch.nan)
    return torch.inference_mode()(lambda: module(x))


@pytest.fixture(autouse=True)
def _memory_is_poisoned(fill_with_nan: Callable[[], object]) -> Iterator[None]:
    """Fill new memory of torch, and that of the kernels, with NaN until it is written."""
    fill_with_nan()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)
