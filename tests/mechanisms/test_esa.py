"""The forms of ESA without golden data of their own, beside the same in plain torch."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as T

import foveate
from foveate.oracle import evaluate
from tolerance import distance

Weights = dict[str, Tensor]


def conv(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """Return a 1x1 or 3x3 convolution, or a separable one."""
    if f"{name}.depth.weight" in w:
        x, name = T.conv2d(x, w[f"{name}.point.weight"]), f"{name}.depth"
    weight = w[f"{name}.weight"]
    groups = x.shape[1] // weight.shape[1]
    return T.conv2d(x, weight, w[f"{name}.bias"], stride, weight.shape[2] // 2 if stride == 1 else 0, 1, groups)


def esa(w: Weights, x: Tensor, form: str) -> Tensor:
    z = conv(w, "reduce", x)
    t = T.max_pool2d(conv(w, "halve", z, 2), 7, 3)
    for name in ("first", "second"):
        t = T.gelu(conv(w, name, t)) if form == "bsrn" else t + T.silu(conv(w, name, t))
    t = conv(w, "last", t) + (0 if form == "bsrn" else t)
    far = T.interpolate(t, x.shape[2:], mode="bilinear", align_corners=False)
    return x * conv(w, "expand", far + conv(w, "skip", z)).sigmoid()


@pytest.mark.parametrize("form", ["bsrn", "rlcsr"])
def test_a_form_is_its_formula(form: str) -> None:
    torch.manual_seed(0)
    module = foveate.attention("esa", 8, form=form, dtype=torch.float64)
    x = torch.randn(2, 8, 23, 29, dtype=torch.float64)
    with torch.no_grad():
        want = esa(dict(module.state_dict()), x, form)
        assert distance(module(x), want) < 1e-12
    weights = {name: value.numpy() for name, value in module.state_dict().items()}
    assert distance(torch.from_numpy(evaluate(module.mechanism, weights, x.numpy())[0]), want) < 1e-12
