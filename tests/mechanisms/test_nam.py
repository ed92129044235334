"""NAM where all scales of its norm are 0, for which the released code divides 0 by 0."""

import pytest
import torch

import foveate
from foveate.oracle import evaluate


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_scales_of_zero_give_gates_of_one_half_and_finite_gradients(dtype: torch.dtype) -> None:
    module = foveate.attention("nam", 8, dtype=dtype)
    torch.nn.init.zeros_(module.get_parameter("norm.weight"))
    x = torch.randn(2, 8, 3, 4, dtype=dtype, requires_grad=True)
    y = module(x)
    assert torch.equal(y, x / 2)
    weights = {name: value.double().numpy() for name, value in module.state_dict().items()}
    found, _ = evaluate(module.mechanism, weights, x.detach().double().numpy(), training=True)
    assert (torch.from_numpy(found) == x.detach().double() / 2).all()
    y.square().sum().backward()
    assert x.grad is not None
    assert all(
        value.isfinite().all() for value in (x.grad, *(p.grad for p in module.parameters() if p.grad is not None))
    )
