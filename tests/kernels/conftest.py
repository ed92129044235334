from collections.abc import Iterator

import pytest
import torch

from foveate.kernels import ops


@pytest.fixture(scope="session")
def built() -> None:
    """The compiled kernels; `test_built` fails where they are missing though they could be compiled."""
    reason = ops.load()
    if reason is not None:
        pytest.skip(f"no kernels: {reason}")


@pytest.fixture(autouse=True)
def _memory_is_poisoned() -> Iterator[None]:
    """What torch allocates holds NaN until it is written."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(1).isnan()
    yield
    torch.use_deterministic_algorithms(False)
