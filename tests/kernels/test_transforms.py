"""torch.func, second derivatives and threads: the same as without kernels, or a clear error."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from foveate import kernels
from foveate.errors import FoveateError, UsageError
from kernels.cases import DEFAULTS, Subject, by_kernel, by_reference, draw, step, watched

pytestmark = pytest.mark.usefixtures("built")

SUBJECT = pytest.mark.parametrize("subject", DEFAULTS, ids=str)


def loss(module: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    return functional_call(module, weights, (x,)).square().sum()


def each_sample(module: nn.Module, x: Tensor) -> Any:
    weights = {name: value.detach() for name, value in module.named_parameters()}
    return vmap(grad(lambda w, one: loss(module, w, one[None])), in_dims=(None, 0))(weights, x)


TRANSFORMS = {
    "vmap": lambda module, x: vmap(module)(torch.stack([x, 2 * x])),
    "grad": lambda module, x: grad(lambda v: module(v).square().sum())(x),
    "gradients of each sample": each_sample,
    "jvp": lambda module, x: jvp(module, (x,), (torch.ones_like(x),)),
}


@SUBJECT
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # from an import of jvp
def test_transforms_take_the_plain_operations(subject: Subject, transform: Any) -> None:
    module, x = subject.module(8).eval(), draw(3, 8, 5, 6)
    want = by_reference(lambda: transform(module, x))
    with kernels.using(None), watched() as seen:
        torch.testing.assert_close(transform(module, x), want)
    assert not seen
    with kernels.using("cpu"), pytest.raises(FoveateError, match=r"(?s)Expected a kernel.*Received .*Do: "):
        transform(module, x)


def first_gradient(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    y = module(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    return y, gradient


SECOND = {
    "backward": lambda y, gradient, x: gradient.square().sum().backward(),
    "grad": lambda y, gradient, x: torch.autograd.grad(gradient.square().sum(), x),
    "grad beside another way to x": lambda y, gradient, x: torch.autograd.grad(gradient.square().sum() + y.sum(), x),
    "grad where x may be unused": lambda y, gradient, x: torch.autograd.grad(gradient.sum(), x, allow_unused=True),
}


@SUBJECT
@pytest.mark.parametrize("second", SECOND.values(), ids=SECOND)
def test_a_second_derivative_is_refused(subject: Subject, second: Any) -> None:
    module, x = subject.module(8).eval(), draw(3, 8, 5, 6).requires_grad_()
    _, want = by_reference(lambda: first_gradient(module, x))
    y, gradient = by_kernel(lambda: first_gradient(module, x))
    torch.testing.assert_close(gradient, want)
    with pytest.raises(UsageError, match=r"(?s)one differentiation.*using\(\"reference\"\)"):
        second(y, gradient, x)


def test_called_from_several_threads() -> None:
    modules = [subject.module(24) for subject in DEFAULTS]
    inputs = [(draw(3, 24, 28, 28, seed=i), draw(3, 24, 28, 28, seed=i + 100)) for i in range(len(modules))]
    with kernels.using("cpu"), ThreadPoolExecutor(4) as pool:
        want = [step(module, *two) for module, two in zip(modules, inputs, strict=True)]
        for _ in range(5):
            got = list(pool.map(lambda i: step(modules[i], *inputs[i]), range(len(modules))))
            assert [
                name for w, g in zip(want, got, strict=True) for name in w if not torch.equal(w[name], g[name])
            ] == []
