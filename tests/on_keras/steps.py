"""The numbers of a call and of a training step, on the backend in use."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import keras
import numpy as np

from foveate.bind.keras.attention import Attention
from foveate.bind.keras.layer_weights import state
from foveate.bind.weight_layouts import Arrays

BACKEND = keras.backend.backend()
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def options(layer: Any) -> Any:
    """Return JAX's compile options for a layer, which runs only once.

    Whole networks use the default options, because without them XLA computes NaN for some gradients.
    """
    return QUICK if isinstance(layer, Attention) else None


def precision(dtype: str) -> AbstractContextManager[Any]:
    """Allow arrays of that dtype: by default, JAX turns float64 into float32."""
    if BACKEND != "jax" or dtype != "float64":
        return nullcontext()
    import jax

    return jax.enable_x64(True)


def forward(layer: Any) -> Callable[..., np.ndarray]:
    """Return a function that runs a layer or model in evaluation; compiled on JAX, where eager execution is slower."""
    if BACKEND != "jax":
        return lambda *inputs: numpy(layer(*inputs, training=False))
    import jax

    call = jax.jit(partial(layer.stateless_call, training=False), compiler_options=options(layer))

    def run(*inputs: np.ndarray) -> np.ndarray:
        values = [
            [variable.value for variable in variables]
            for variables in (layer.trainable_variables, layer.non_trainable_variables)
        ]
        return numpy(call(*values, *inputs)[0])

    return run


def step(
    layer: Attention, inputs: list[np.ndarray], dy: np.ndarray, training: bool
) -> tuple[np.ndarray, list[np.ndarray], Arrays]:
    """Return y, the gradient of every input, and that of every trainable weight under the torch binding's names."""
    variables = list(layer.trainable_variables)
    tensors = [keras.ops.convert_to_tensor(x, dtype=layer.compute_dtype) for x in inputs]
    seed = keras.ops.convert_to_tensor(dy, dtype=layer.compute_dtype)
    y, of_inputs, of_weights = FRAMEWORKS[BACKEND](layer, tensors, variables, seed, training)
    return numpy(y), [numpy(g) for g in of_inputs], _named(layer, variables, [numpy(g) for g in of_weights])


def gradients(model: Any, x: np.ndarray, dy: np.ndarray) -> list[np.ndarray]:
    """Return the gradient of every trainable weight of a model in training."""
    tensors = [keras.ops.convert_to_tensor(x)]
    of_weights = FRAMEWORKS[BACKEND](
        model, tensors, list(model.trainable_variables), keras.ops.convert_to_tensor(dy), True
    )[2]
    return [numpy(gradient) for gradient in of_weights]


def _tensorflow(layer: Any, tensors: Any, variables: Any, dy: Any, training: bool) -> Any:
    import tensorflow as tf

    values = [variable.value for variable in variables]
    tape: Any
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = layer(*tensors, training=training)
        total = tf.reduce_sum(y * dy)
    of_inputs, of_weights = tape.gradient(total, (tensors, values), unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return y, of_inputs, of_weights


def _jax(layer: Any, tensors: Any, variables: Any, dy: Any, training: bool) -> Any:
    import jax

    others = [variable.value for variable in layer.non_trainable_variables]

    def total(values: Any, tensors: Any) -> Any:
        y, after = layer.stateless_call(values, others, *tensors, training=training)
        return (y * dy).sum(), (y, after)

    values = [variable.value for variable in variables]
    differentiate = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True), compiler_options=options(layer))
    (_, (y, after)), (of_weights, of_inputs) = differentiate(values, tensors)
    for variable, value in zip(layer.non_trainable_variables, after, strict=True):
        variable.assign(value)
    return y, of_inputs, of_weights


def _torch(layer: Any, tensors: Any, variables: Any, dy: Any, training: bool) -> Any:
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    for variable in variables:
        variable.value.grad = None
        if (
            len(variable.shape) == 4 and variable.dtype == "float64"
        ):  # torch's float64 convolution needs weights that are contiguous in torch's order; Keras's are a view
            variable.value.data = variable.value.data.permute(3, 2, 0, 1).contiguous().permute(2, 3, 1, 0)
    y = layer(*tensors, training=training)
    y.backward(dy)
    return y, [tensor.grad for tensor in tensors], [_or_zeros(variable.value) for variable in variables]


def _or_zeros(parameter: Any) -> Any:
    return parameter.detach() * 0 if parameter.grad is None else parameter.grad


FRAMEWORKS: dict[str, Callable[..., Any]] = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


def found(model: Any) -> list[Any]:
    """Return the state that attaching must not change: the number of calls of the layers, and their weights."""
    layers = list(model._flatten_layers())
    return [[len(layer._inbound_nodes) for layer in layers], [numpy(weight).tolist() for weight in model.weights]]


def numpy(tensor: Any) -> np.ndarray:
    """Return a tensor of the backend as an array."""
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def _named(layer: Attention, variables: list[Any], gradients: list[np.ndarray]) -> Arrays:
    """Convert gradients to torch's names and shapes, by setting them as weights and reading the state."""
    before = [numpy(variable.value) for variable in variables]
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.assign(gradient)
    trainable = {id(variable) for variable in layer.trainable_variables}
    names = {name for name, variable in _by_name(layer) if id(variable) in trainable}
    found = {name: value for name, value in state(layer).items() if name in names}
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)
    return found


def _by_name(layer: Attention) -> Any:
    from foveate.bind.keras import layer_weights

    return layer_weights._variables(layer)
