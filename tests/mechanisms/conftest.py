from collections.abc import Iterator

import pytest

from foveate import kernels


@pytest.fixture(autouse=True)
def _plain_operations() -> Iterator[None]:
    """What is tested here is the definition, whatever kernels there are: theirs are the tests in kernels/."""
    with kernels.using("reference"):
        yield
