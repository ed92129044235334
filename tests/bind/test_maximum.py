"""The maximum over axes equals torch's own: its bits, its strides and its gradients, and in transforms."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from foveate.bind.torch import maximum
from foveate.bind.torch.maximum import amax
from foveate.bind.torch.ops import OPS

AXES = [(1,), (2,), (3,), (2, 3)]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def whole_numbers(layout: torch.memory_format, *shape: int) -> Tensor:
    """Return a map with many equal maxima."""
    x = torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(0)).double()
    return x.contiguous(memory_format=layout)


def own(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.amax(axes, keepdim=True)


def squares(function: Callable[..., Tensor], axes: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    return lambda x: (function(x, axes) ** 2).sum()


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 4, 1, 3), (2, 1, 3, 1)], ids=str)
def test_bits_memory_and_gradient(axes: tuple[int, ...], layout: torch.memory_format, shape: tuple[int, ...]) -> None:
    ours, theirs = (whole_numbers(layout, *shape).requires_grad_() for _ in range(2))
    y, want = amax(ours, axes), own(theirs, axes)
    assert torch.equal(y, want)
    assert y.is_contiguous() == want.is_contiguous()
    dy = torch.linspace(1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    y.backward(dy)
    want.backward(dy)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-15, atol=0)
    with torch.no_grad():
        assert torch.equal(amax(ours, axes), want)


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_what_is_not_finite(axes: tuple[int, ...]) -> None:
    x = whole_numbers(torch.channels_last, 2, 3, 4, 5)
    x[0, 0, 0, 0], x[1, 1, 2, 2], x[1, 2, 3, 3] = float("nan"), float("inf"), float("-inf")
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, want = amax(ours, axes), own(theirs, axes)
    torch.testing.assert_close(y, want, rtol=0, atol=0, equal_nan=True)
    y.sum().backward()
    want.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-15, atol=0, equal_nan=True)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # from an import of hessian
def test_second_derivatives_and_transforms(axes: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: amax(x, axes), x)
    x = x.detach()
    for transform in (torch.func.hessian, lambda f: torch.func.vmap(torch.func.grad(lambda x: f(x[None])))):
        torch.testing.assert_close(transform(squares(amax, axes))(x), transform(squares(own, axes))(x))


def test_the_memory_order_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and columns of a channels-last map are reduced as its memory lies; all else as torch does it."""
    seen: list[Tensor] = []

    def watch(x: Tensor, axes: object, keepdim: bool) -> Tensor:
        seen.append(x)
        return x.amax(axes, keepdim=keepdim)  # pyright: ignore[reportArgumentType, reportCallIssue]

    monkeypatch.setattr(maximum.torch, "amax", watch)
    for layout in LAYOUTS:
        for axes in AXES:
            amax(whole_numbers(layout, 2, 3, 4, 5), axes)
    assert [tuple(x.shape) for x in seen] == [(2, 3, 4, 5)] * 5 + [(2, 4, 5, 3)] * 2 + [(2, 3, 4, 5)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("window", [(1, 2), (4, 8), (2, 1), (16, 2)], ids=str)
def test_windows_of_powers_of_two_pool_to_the_same_bits(layout: torch.memory_format, window: tuple[int, int]) -> None:
    x = torch.randn(2, 40, 3 * window[0], 5 * window[1]).contiguous(memory_format=layout)
    y, want = OPS.adaptive_pool(x, "mean", (3, 5)), torch.nn.functional.adaptive_avg_pool2d(x, (3, 5))
    assert torch.equal(y, want)
    assert y.stride() == want.stride()
