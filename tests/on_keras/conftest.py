"""Keras reads its backend once, so each backend's tests are a process of their own: KERAS_BACKEND=jax pytest tests/on_keras."""

import os
from collections.abc import Iterator

import pytest

BACKEND = os.environ.get("KERAS_BACKEND", "")
collect_ignore_glob = [] if BACKEND else ["*"]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left_behind() -> Iterator[None]:
    """Once a file, since the collection of garbage in it takes half a second."""
    import keras

    yield
    keras.utils.clear_session()
