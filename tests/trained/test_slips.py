"""Each mistake that is easily made in a published network must show in the comparison with it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, silu

from foveate.bind.torch.ops import TorchOps
from foveate.bind.torch.parts import Gate
from foveate.ops import Resize
from foveate.torch_utils.names import CHILD
from trained import ecas, rlcsr
from trained.networks import SE_SITES, TOLERANCE, error, network

Patch = pytest.MonkeyPatch
Slip = Callable[[Patch, Any], None]


def wrong(owner: Any, name: str, value: Any) -> Slip:
    """Return the slip that gives an attribute another value."""
    return lambda patch, net: patch.setattr(owner, name, value)


def without_attention(patch: Patch, net: nn.Module) -> None:
    patch.setattr(Gate, "forward", lambda self, x, logits: x)


def without_the_first_norm(patch: Patch, net: nn.Module) -> None:
    for site in SE_SITES:
        patch.setitem(net.get_submodule(f"{site}.{CHILD}")._modules, "reduce_norm", nn.Identity())


def hard_gates(patch: Patch, net: nn.Module) -> None:
    for site in SE_SITES:
        patch.setattr(net.get_submodule(f"{site}.{CHILD}.gate"), "activation", "hard_sigmoid")


def other_variance(patch: Patch, net: nn.Module) -> None:
    right = TorchOps.variance
    patch.setattr(
        TorchOps, "variance", lambda self, x, axes, unbiased=False, mean=None: right(self, x, axes, not unbiased)
    )


def without_contrast(patch: Patch, net: nn.Module) -> None:
    patch.setattr(TorchOps, "variance", lambda self, x, axes, mean=None: torch.zeros_like(x.sum(axes, keepdim=True)))


def mean_of_cells(patch: Patch, net: nn.Module) -> None:
    right = TorchOps.adaptive_pool
    patch.setattr(TorchOps, "adaptive_pool", lambda self, x, kind, size: right(self, x, "mean", size))


def resized(method: Resize) -> Slip:
    right = TorchOps.resize
    return wrong(TorchOps, "resize", lambda self, x, like, _: right(self, x, like, method))


def without_channel_attention(patch: Patch, net: Any) -> None:
    patch.setitem(net.encoder._modules, "sc", nn.Identity())


def similar_channels_weigh_most(patch: Patch, net: nn.Module) -> None:
    right = TorchOps.softmax
    patch.setattr(TorchOps, "softmax", lambda self, x, axes: right(self, -x, axes))


def kernel_reversed(patch: Patch, net: Any) -> None:
    weights = net.eca.attention.conv._parameters
    patch.setitem(weights, "weight", nn.Parameter(weights["weight"].flip(2)))


def circular_padding(patch: Patch, net: Any) -> None:
    conv = nn.Conv1d(1, 1, 5, padding=2, bias=False, padding_mode="circular", dtype=torch.float64)
    conv.weight = net.eca.attention.conv.weight
    patch.setitem(net.eca.attention._modules, "conv", conv)


def contrast_before_esa(patch: Patch, net: nn.Module) -> None:
    for block in net.children():
        if hasattr(block, "esa"):
            first, second = block.cca, block.esa
            patch.setitem(block._modules, "esa", first)
            patch.setitem(block._modules, "cca", second)


def maximum_first(patch: Patch, net: nn.Module) -> None:
    right = TorchOps.concat
    patch.setattr(TorchOps, "concat", lambda self, xs, axes: right(self, xs[::-1], axes))


def other_cbam(**options: Any) -> Slip:
    def slip(patch: Patch, net: Any) -> None:
        patch.setattr(net.BAM, "mechanism", dataclasses.replace(net.BAM.mechanism, **options))

    return slip


def approximate_gelu(self: TorchOps, x: torch.Tensor) -> torch.Tensor:
    """Return GELU by tanh in the gate, which has 36 channels; the other one has 72."""
    return gelu(x, approximate="tanh" if x.shape[1] == 36 else "none")


class Slips(NamedTuple):
    """Slips in one network: the slip, and its least and greatest change of the published inputs, as measured there."""

    network: str
    slip: Slip
    least: float
    greatest: float
    inputs: tuple[int, ...] = (0, 1, 2)


LARGER = (1, 2)  # the inputs that ESA pools to more than one value
SLIPS = {
    "no SE": Slips("minifasnet_v1se", without_attention, 0.56, 1.7),
    "no first norm in SE": Slips("minifasnet_v1se", without_the_first_norm, 0.09, 1.2),
    "hard sigmoid in SE": Slips("minifasnet_v1se", hard_gates, 0.05, 0.11),
    "biased variance in SMFA": Slips("smfanet_x2", other_variance, 7e-5, 2e-4),
    "mean for maximum in SMFA": Slips("smfanet_x2", mean_of_cells, 0.07, 0.10),
    "bilinear for nearest in SMFA": Slips("smfanet_x2", resized("bilinear"), 0.003, 0.03),
    "GELU by tanh in SMFA": Slips("smfanet_x2", wrong(TorchOps, "gelu", approximate_gelu), 3e-5, 1e-4),
    "no channel attention": Slips("twinlitenet", without_channel_attention, 0.18, 0.20),
    "no maximum minus": Slips("twinlitenet", similar_channels_weigh_most, 0.01, 0.02),
    "ECA not added": Slips("ecas_x4", wrong(ecas.Added, "forward", lambda self, x: self.attention(x)), 0.39, 0.41),
    "ECA reversed": Slips("ecas_x4", kernel_reversed, 2e-4, 3e-4),
    "ECA with circular padding": Slips("ecas_x4", circular_padding, 2e-6, 3e-6),
    "no contrast": Slips("eaglesr_x4", without_contrast, 0.23, 0.25),
    "unbiased variance": Slips("eaglesr_x4", other_variance, 1e-4, 5e-4),
    "contrast before ESA": Slips("eaglesr_x4", contrast_before_esa, 0.13, 0.23),
    "aligned corners in ESA": Slips("eaglesr_x4", resized("aligned"), 0.002, 0.002, LARGER),
    "maximum before mean": Slips("rlcsr_x4", maximum_first, 0.09, 0.13),
    "one gate after the other": Slips("rlcsr_x4", other_cbam(order="channel-spatial"), 0.02, 0.08),
    "no maximum": Slips("rlcsr_x4", other_cbam(pools=("avg",)), 0.02, 0.03),
    "SiLU for SELU": Slips("rlcsr_x4", wrong(rlcsr, "activated", silu), 0.09, 0.27),
    "aligned corners in ESA with weight norm": Slips("rlcsr_x4", resized("aligned"), 0.0005, 0.001, LARGER),
}


@pytest.mark.parametrize("case", SLIPS)
def test_a_slip_is_seen_in_every_input_that_can_show_it(case: str, shared: Path) -> None:
    name, slip, least, greatest, inputs = SLIPS[case]
    with pytest.MonkeyPatch.context() as patch:
        slip(patch, network(name, shared, torch.float64))
        found = [error(name, shared, at) for at in inputs]
    assert min(found) > 1e3 * TOLERANCE[torch.float64]
    assert least / 1.4 < min(found) <= max(found) < 1.4 * greatest  # the published changes are rounded
    assert error(name, shared) < TOLERANCE[torch.float64], "the slip was not taken back"


def test_position_attention_of_twinlitenet_has_no_effect(shared: Path) -> None:
    net: Any = network("twinlitenet", shared, torch.float64)
    assert 0 < net.encoder.sa.query.weight.abs().max() < 1e-40, "tiny weights must load as they are"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(net.encoder._modules, "sa", nn.Identity())
        assert error("twinlitenet", shared) < TOLERANCE[torch.float64]
