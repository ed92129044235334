"""Each planted mistake must make the comparison with the golden data fail."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from foveate.bind.torch.attention import Attention
from foveate.bind.torch.ops import TorchOps
from foveate.bind.torch.parts import Gate
from foveate.oracle import NumpyOps
from golden_data import cases, disagreements, oracle_errors

CASES = {str(case): case for case in cases()}
Patch = pytest.MonkeyPatch


def wrong_op(name: str, wrong: object) -> Callable[[Patch, Attention], None]:
    return lambda patch, module: patch.setattr(TorchOps, name, wrong)


def wrong_gate(wrong: Callable[[Gate, Tensor], Tensor]) -> Callable[[Patch, Attention], None]:
    return lambda patch, module: patch.setattr(Gate, "gate", wrong)


def every(kind: type[nn.Module], change: Callable[[nn.Module], object]) -> Callable[[Patch, Attention], None]:
    def mutate(patch: Patch, module: Attention) -> None:
        with torch.no_grad():
            for child in module.modules():
                if isinstance(child, kind):
                    change(child)

    return mutate


def swap_rows_and_columns(patch: Patch, module: Attention) -> None:
    patch.setattr(TorchOps, "h", (3,))
    patch.setattr(TorchOps, "w", (2,))


def join_columns_first(patch: Patch, module: Attention) -> None:
    join = TorchOps.concat
    patch.setattr(TorchOps, "concat", lambda self, xs, axes: join(self, xs[::-1], axes))


def attend_without_scale(patch: Patch, module: Attention) -> None:
    attend = TorchOps.attend
    patch.setattr(TorchOps, "attend", lambda self, q, k, v, scale: attend(self, q, k, v, scale / 2))


def other_order(patch: Patch, module: Attention) -> None:
    object.__setattr__(module.mechanism, "order", "spatial-channel")


def frozen(module: nn.Module) -> None:
    next(module.parameters()).requires_grad_(False)


MUTATIONS = [
    ("max is a mean", "cbam-default-case2", wrong_op("max", TorchOps.mean), "y"),
    ("max is a mean, channel gate", "cbam-channel_max_only-case0", wrong_op("max", TorchOps.mean), "y"),
    ("max is a mean, spatial gate", "cbam-spatial_only-case2", wrong_op("max", TorchOps.mean), "y"),
    (
        "mean is a sum",
        "se-bias_linear_r4-case0",
        wrong_op("mean", lambda self, x, axes: x.sum(axes, keepdim=True)),
        "y",
    ),
    (
        "lp is a mean square",
        "cbam-four_pools-case0",
        wrong_op("norm", lambda self, x, axes: x.pow(2).mean(axes, True).sqrt()),
        "y",
    ),
    ("lse is a maximum", "cbam-four_pools-case0", wrong_op("logsumexp", TorchOps.max), "y"),
    ("no sigmoid", "eca-k3-case0", wrong_gate(lambda self, logits: logits), "y"),
    (
        "a hard sigmoid",
        "se-bias_linear_r4-case0",
        wrong_gate(lambda self, logits: nn.functional.hardsigmoid(logits)),
        "y",
    ),
    (
        "a gate without gradient",
        "se-bias_linear_r4-case0",
        wrong_gate(lambda self, logits: logits.detach().sigmoid()),
        "gx",
    ),
    ("no relu", "se-no_bias_linear-case2", wrong_op("relu", lambda self, x: x), "y"),
    ("relu for hard-swish", "coordinate-default-case0", wrong_op("hardswish", lambda self, x: x.relu()), "y"),
    ("rows for columns", "coordinate-default-case2", swap_rows_and_columns, "y"),
    ("rows for columns on a square map", "coordinate-default-case0", swap_rows_and_columns, "y"),
    ("[mean, max]", "cbam-default-case0", join_columns_first, "y"),
    ("[mean, max], listing", "first_listings-torch_cbam-case0", join_columns_first, "y"),
    ("no bias", "se-bias_linear_r4-case2", every(nn.Conv2d, lambda conv: nn.init.zeros_(conv.bias)), "y"),  # type: ignore[arg-type]
    ("ECA reversed", "eca-k3-case0", every(nn.Conv1d, lambda conv: conv.weight.copy_(conv.weight.flip(2))), "y"),  # type: ignore[operator]
    (
        "wrong momentum",
        "cbam-default-case7",
        every(nn.BatchNorm2d, lambda norm: setattr(norm, "momentum", 0.1)),
        "post/",
    ),
    (
        "wrong momentum, coordinate",
        "coordinate-default-case7",
        every(nn.BatchNorm2d, lambda n: setattr(n, "momentum", 0.01)),
        "post/",
    ),
    (
        "wrong eps",
        "first_listings-keras_coordinate-case0",
        every(nn.BatchNorm2d, lambda norm: setattr(norm, "eps", 1e-5)),
        "y",
    ),
    ("wrong scale", "first_listings-cross-case0", attend_without_scale, "y"),
    ("wrong order", "cbam-default-case0", other_order, "y"),
    ("a frozen convolution", "cbam-default-case0", every(nn.Conv2d, frozen), "gw/"),
]


@pytest.mark.parametrize(("case", "mutate", "shows"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_a_mistake_is_found(
    case: str, mutate: Callable[[Patch, Attention], None], shows: str, dtype: torch.dtype
) -> None:
    with Patch.context() as patch:
        module = CASES[case].config.module(dtype)
        mutate(patch, module)
        found = disagreements(CASES[case], module, dtype)
    assert any(line.startswith(shows) for line in found), f"no line starts with {shows!r} in {found}"


@pytest.mark.parametrize("case", ["cbam-default-case0", "cbam-spatial_only-case2"])
def test_a_mistake_in_the_oracle_is_found(case: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(NumpyOps, "max", NumpyOps.mean)
    assert any(error > 1e-3 for _, error in oracle_errors(CASES[case]))
