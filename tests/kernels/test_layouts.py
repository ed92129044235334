"""Inputs and gradients with any strides, and the memory layout of the results."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels.cases import DEFAULTS, VIEWS, Layout, Subject, by_kernel, by_reference, draw, faults, steps
from thinned import thinned

pytestmark = pytest.mark.usefixtures("built")

LAYOUTS: list[Layout] = ["nchw", "channels_last"]
SHAPES = [(2, 8, 5, 6), (1, 8, 5, 6), (2, 1, 5, 6), (2, 8, 1, 1), (2, 8, 1, 6), (2, 8, 6, 1), (1, 1, 1, 1)]
DTYPES = [torch.float32, torch.bfloat16]


@thinned(3, subject=DEFAULTS, layout=LAYOUTS, dtype=DTYPES, view=VIEWS)
def test_views_as_input(subject: Subject, layout: Layout, dtype: torch.dtype, view: Callable[[Tensor], Tensor]) -> None:
    def x(seed: int) -> Tensor:
        return view(draw(3, 10, 9, 7, dtype=dtype, layout=layout, seed=seed))

    module = subject.module(x(0).shape[1], dtype=dtype)
    assert faults(steps(module, x)) == []


@thinned(2, subject=DEFAULTS, layout=LAYOUTS, view=VIEWS)
def test_views_as_gradient(subject: Subject, layout: Layout, view: Callable[[Tensor], Tensor]) -> None:
    def x(seed: int) -> Tensor:
        if seed >= 100:
            return view(draw(3, 10, 9, 7, seed=seed))
        return draw(*view(draw(3, 10, 9, 7)).shape, layout=layout, seed=seed)

    assert faults(steps(subject.module(x(0).shape[1]), x)) == []


@thinned(2, subject=DEFAULTS, layout=LAYOUTS, dtype=DTYPES, shape=SHAPES)
def test_the_output_keeps_the_layout(
    subject: Subject, layout: Layout, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    module, x = subject.module(shape[1], dtype=dtype).eval(), draw(*shape, dtype=dtype, layout=layout).requires_grad_()
    want, got = by_reference(lambda: module(x)), by_kernel(lambda: module(x))
    assert got.stride() == want.stride()
    (gradient,) = torch.autograd.grad(got.sum(), x)
    assert gradient.stride() == x.stride()
    with torch.no_grad():
        assert by_kernel(lambda: module(x)).stride() == want.stride()
