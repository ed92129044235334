from collections.abc import Iterator

import pytest

from foveate import kernels


@pytest.fixture(autouse=True)
def _plain_operations() -> Iterator[None]:
    """Test the definitions without kernels; the tests of the kernels are in tests/kernels."""
    with kernels.using("reference"):
        yield
