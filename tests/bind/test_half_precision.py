"""Half precision on large maps: every pooling gives finite gates near those of float32, and finite gradients."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate

SIDE = 300  # more positions than the largest number of float16
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "lp": ("channel", {"pools": ("lp",)}),
    "lse": ("channel", {"pools": ("lse",)}),
    "avg, max": ("channel", {}),
    **{name: (name, {}) for name in ("se", "eca", "coordinate", "spatial", "cbam")},
}


ROUNDED = {"lp", "se", "eca", "coordinate"}  # the others have a maximum, and rounding makes other values the largest


def gates(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = module(x)
    (y.float().sum() / (SIDE * max(float(x.detach().max()), 1))).backward()  # a loss in the range of float16
    assert x.grad is not None
    return y.detach().float(), x.grad.float()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("dtype", "scale"), [(torch.float16, 0.0003), (torch.float16, 300), (torch.bfloat16, 300)])
def test_large_maps(case: str, dtype: torch.dtype, scale: float) -> None:
    name, options = CASES[case]
    torch.manual_seed(0)
    exact = foveate.attention(name, 8, **({} if name in ("eca", "spatial") else {"reduction": 4}), **options).eval()
    half, x = copy.deepcopy(exact).to(dtype), torch.rand(1, 8, SIDE, SIDE) * scale
    (expected, slope), (found, found_slope) = gates(exact, x), gates(half, x.to(dtype))
    assert found.isfinite().all()
    assert found_slope.isfinite().all()
    tolerance = 0.02 if dtype is torch.float16 else 0.25
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    if case in ROUNDED:
        assert (found_slope - slope).abs().max() <= tolerance * slope.abs().max()


def test_a_norm_above_the_largest_number_of_float16() -> None:
    """It is saturated, and a NaN stays one."""
    torch.manual_seed(0)
    exact = foveate.attention("channel", 8, reduction=4, pools=("lp",)).eval()
    x = torch.rand(1, 8, SIDE, SIDE) * 600
    assert torch.linalg.vector_norm(x, dim=(2, 3)).min() > torch.finfo(torch.float16).max
    found, slope = gates(copy.deepcopy(exact).half(), x.half())
    assert slope.isfinite().all()
    assert (found - exact(x)).abs().max() <= 0.01 * x.max()
    assert exact(x * float("nan")).isnan().all()
