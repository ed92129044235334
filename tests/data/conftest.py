"""What tests of readers share: their limits of time count the reader alone."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _without_the_rest_of_the_process() -> Iterator[None]:
    """Keep what earlier tests left in memory out of collections of garbage, which would otherwise take up to a second."""
    gc.freeze()
    yield
    gc.unfreeze()
