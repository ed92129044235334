"""The loss and the decoding in keras.ops equal those in torch, with their gradients, also when compiled."""

from typing import Any

import keras
import numpy as np
import pytest
import torch

from detection.examples import CLASSES, HEADS, SIZE, random_outputs, random_targets
from foveate.detection.heads import decode_all
from foveate.detection.loss import detection_loss
from on_keras.steps import BACKEND, QUICK, numpy

OPTIONS: dict[str, Any] = {"smoothing": 0.1}
TOLERANCE = 2e-5


def examples() -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return [x.astype("float32") for x in random_outputs(rng, 3)], [x.astype("float32") for x in random_targets(rng, 3)]


def by_torch(outputs: list[np.ndarray], targets: list[np.ndarray]) -> tuple[dict[str, float], list[np.ndarray]]:
    tensors = [torch.from_numpy(x.astype("float64")).requires_grad_() for x in outputs]
    terms = detection_loss(torch, tensors, [torch.from_numpy(x.astype("float64")) for x in targets], HEADS, **OPTIONS)
    gradients = torch.autograd.grad(terms["total"], tensors)
    return {name: value.item() for name, value in terms.items()}, [gradient.numpy() for gradient in gradients]


def by_keras(
    outputs: list[np.ndarray], targets: list[np.ndarray], **options: Any
) -> tuple[dict[str, float], list[np.ndarray]]:
    tensors, wanted = (
        [keras.ops.convert_to_tensor(x, dtype=str(x.dtype)) for x in arrays] for arrays in (outputs, targets)
    )

    def call(*tensors: Any) -> dict[str, Any]:
        return detection_loss(keras.ops, tensors, wanted, HEADS, **OPTIONS, **options)

    terms, gradients = FRAMEWORKS[BACKEND](call, tensors)
    return {name: float(numpy(value)) for name, value in terms.items()}, [numpy(gradient) for gradient in gradients]


def _tensorflow(call: Any, tensors: Any) -> Any:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in tensors])
    def compiled(*tensors: Any) -> Any:
        tape: Any
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            terms = call(*tensors)
        return terms, tape.gradient(terms["total"], tensors)

    return compiled(*tensors)


def _jax(call: Any, tensors: Any) -> Any:
    import jax

    def total(tensors: Any) -> Any:
        terms = call(*tensors)
        return terms["total"], terms

    (_, terms), gradients = jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=QUICK)(tensors)
    return terms, gradients


def _torch(call: Any, tensors: Any) -> Any:
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    terms = call(*tensors)
    return {name: value.detach() for name, value in terms.items()}, torch.autograd.grad(terms["total"], tensors)


FRAMEWORKS = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_loss_and_its_gradients_are_those_of_torch(channels_last: bool) -> None:
    """Compare in float32, because Keras converts float64 to float32 in places."""
    outputs, targets = examples()
    wanted, of_torch = by_torch(outputs, targets)
    laid_out = [output.transpose(0, 2, 3, 1) if channels_last else output for output in outputs]
    found, gradients = by_keras(laid_out, targets, channels_last=channels_last)
    assert found == pytest.approx(wanted, rel=TOLERANCE)
    for gradient, other in zip(gradients, of_torch, strict=True):
        laid_back = gradient.transpose(0, 3, 1, 2) if channels_last else gradient
        np.testing.assert_allclose(laid_back, other, atol=TOLERANCE * np.abs(other).max())


def test_the_comparison_can_fail() -> None:
    outputs, targets = examples()
    wanted, of_torch = by_torch(outputs, targets)
    targets[1][..., 2] += 0.5
    found, gradients = by_keras(outputs, targets)
    assert found != pytest.approx(wanted, rel=TOLERANCE)
    assert np.abs(gradients[1] - of_torch[1]).max() > TOLERANCE * np.abs(of_torch[1]).max()


def test_gradients_at_zero_are_those_of_torch() -> None:
    """The frameworks differ in the gradients of abs and maximum at ties, where a network may begin."""
    outputs, targets = examples()
    zeros = [np.zeros_like(output) for output in outputs]
    wanted, of_torch = by_torch(zeros, targets)
    found, gradients = by_keras(zeros, targets)
    assert found == pytest.approx(wanted, rel=1e-5)
    for gradient, other in zip(gradients, of_torch, strict=True):
        logits = gradient.reshape(3, -1, 5 + CLASSES, *gradient.shape[2:])[:, :, 4:]
        np.testing.assert_allclose(logits, other.reshape(3, -1, 5 + CLASSES, *gradient.shape[2:])[:, :, 4:], atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_decoding_is_that_of_torch(channels_last: bool) -> None:
    outputs, _ = examples()
    wanted = decode_all(torch, [torch.from_numpy(output) for output in outputs], HEADS)
    laid_out = [output.transpose(0, 2, 3, 1) if channels_last else output for output in outputs]
    found = decode_all(keras.ops, [keras.ops.convert_to_tensor(output) for output in laid_out], HEADS, channels_last)
    for mine, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(numpy(mine), other.numpy(), rtol=1e-5, atol=1e-4 * max(SIZE) / 100)
