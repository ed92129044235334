"""Keras reads its backend once, so each backend's tests need a process: KERAS_BACKEND=jax pytest tests/on_keras."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

BACKEND = os.environ.get("KERAS_BACKEND", "")
collect_ignore_glob = [] if BACKEND else ["*"]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(autouse=True, scope="session")
def _numpy_draws_the_first_weights() -> Iterator[None]:
    """Draw without JAX, which compiles each draw for every shape: a third of the time to build a network."""
    if BACKEND != "jax":
        yield
        return
    import jax
    from jax.core import Tracer

    compiled = jax.random.uniform

    def uniform(key: Any, shape: Any = (), dtype: Any = "float32", minval: float = 0.0, maxval: float = 1.0) -> Any:
        if isinstance(key, Tracer):
            return compiled(key, shape, dtype, minval, maxval)
        return jax.numpy.asarray(np.random.default_rng(np.asarray(key)).uniform(minval, maxval, shape).astype(dtype))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax.random, "uniform", uniform)
        yield


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left_behind() -> Iterator[None]:
    """Clear the session once per file, because its garbage collection takes half a second."""
    import keras

    yield
    keras.utils.clear_session()
