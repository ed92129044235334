"""The plain modules that benchmarks time beside ours compute the same, with weights under the authors' names."""

from typing import Any

import pytest
import torch
from benchmarks.references import REFERENCES

import foveate
from foveate.facts import facts
from foveate.mechanisms import built_in

CHANNELS = 256


def randomised(module: Any) -> Any:
    """Return the module with random weights and statistics."""
    torch.manual_seed(0)
    for key, value in module.state_dict().items():
        if "dct" not in key and value.is_floating_point():
            value.uniform_(0.5, 1.5) if value.ndim == 1 else value.normal_(0, value[0].numel() ** -0.5)
    return module


def test_every_reference_is_of_a_mechanism() -> None:
    """A mechanism without one is not timed beside other code: those of listings, and a new one at first."""
    assert REFERENCES.keys() <= set(built_in())
    assert {"cross", "residual_cbam"}.isdisjoint(REFERENCES)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", REFERENCES)
def test_ours_and_the_plain_module_agree(name: str, training: bool) -> None:
    theirs = randomised(REFERENCES[name](CHANNELS).double()).train(training)
    ours = foveate.attention(name, CHANNELS, dtype=torch.float64).train(training)
    foveate.load_published(ours, theirs.state_dict())
    side = max(8, facts(name).get("smallest", 1))
    x = torch.randn(3, CHANNELS, side + 1, side + 4, dtype=torch.float64, requires_grad=True)
    results = []
    for module in (ours, theirs):
        y = module(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), x)
        results.append((y, gradient))
    (y, gradient), (their_y, their_gradient) = results
    torch.testing.assert_close(y, their_y, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-6, atol=1e-6)  # torch's hardsigmoid: see eSE
