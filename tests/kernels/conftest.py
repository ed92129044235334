from collections.abc import Iterator

import pytest
import torch

from foveate.kernels import ops


@pytest.fixture(scope="session")
def built() -> None:
    """Skip without compiled kernels; `test_built` fails where they could be compiled but are missing."""
    reason = ops.load()
    if reason is not None:
        pytest.skip(f"no kernels: {reason}")


@pytest.fixture(autouse=True)
def _memory_is_poisoned() -> Iterator[None]:
    """Fill new memory of torch with NaN until it is written."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)
