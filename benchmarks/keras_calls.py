"""The Keras calls to time: a model's forward and training step, compiled as `predict` and `fit` compile them."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

BACKEND: str = keras.config.backend()
Call = Callable[[], Any]


def call(model: Any, x: np.ndarray, measure: str) -> Call:
    """Return the call to time; it returns the output on x, or the gradients of x (first) and of every weight."""
    dy = np.random.default_rng(1).standard_normal(x.shape, "float32")
    return FRAMEWORKS[BACKEND](model, keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(dy), measure)


def first(result: Any) -> np.ndarray:
    """Return the output, or the gradient of x, from the result of a call."""
    return np.asarray(keras.ops.convert_to_numpy(result[0] if isinstance(result, list | tuple) else result))


def _tensorflow(model: Any, x: Any, dy: Any, measure: str) -> Call:
    import tensorflow as tf

    weights = [variable.value for variable in model.trainable_variables]

    def forward(x: Any, dy: Any) -> Any:
        return model(x, training=False)

    def training(x: Any, dy: Any) -> Any:
        tape: Any
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=True)
        return tape.gradient(y, [x, *weights], output_gradients=dy)

    # Keras compiles with XLA only where there is more than a CPU.
    compiled = tf.function(forward if measure == "forward" else training, jit_compile=model.jit_compile)
    return lambda: compiled(x, dy)


def _jax(model: Any, x: Any, dy: Any, measure: str) -> Call:
    import jax

    weights, others = (
        [variable.value for variable in some] for some in (model.trainable_variables, model.non_trainable_variables)
    )

    def forward(x: Any, dy: Any, weights: Any, others: Any) -> Any:
        return model.stateless_call(weights, others, x, training=False)[0]

    def training(x: Any, dy: Any, weights: Any, others: Any) -> Any:
        _, pull, after = jax.vjp(
            lambda x, weights: model.stateless_call(weights, others, x, training=True), x, weights, has_aux=True
        )
        return *pull(dy), after

    compiled = jax.jit(forward if measure == "forward" else training)
    return lambda: jax.block_until_ready(compiled(x, dy, weights, others))


def _torch(model: Any, x: Any, dy: Any, measure: str) -> Call:
    import torch

    leaves = [x.requires_grad_(measure == "training"), *(variable.value for variable in model.trainable_variables)]

    def forward() -> Any:
        with torch.no_grad():
            return model(x, training=False)

    return forward if measure == "forward" else lambda: torch.autograd.grad(model(x, training=True), leaves, dy)


FRAMEWORKS: dict[str, Callable[..., Call]] = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
