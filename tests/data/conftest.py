"""A fixture for tests of readers: their time limits count only the reader."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _without_the_rest_of_the_process() -> Iterator[None]:
    """Exclude the objects of earlier tests from garbage collection, which would otherwise take up to a second."""
    gc.freeze()
    yield
    gc.unfreeze()
