"""The attention gate on the skips of a U-Net, with the decoder's coarser map as its context."""

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import foveate
from foveate.errors import UsageError
from last_layers import wake
from surgery.segmentation_hosts import double

EXAMPLE = (2, 3, 16, 20)
IMAGE = torch.rand(EXAMPLE, generator=torch.Generator().manual_seed(0))


class Up(nn.Module):
    def __init__(self, channels: int, skips: int):
        super().__init__()
        self.join = double(channels + skips, skips)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.join(torch.cat([skip, interpolate(x, skip.shape[2:])], 1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([double(3, 8), double(8, 12), double(12, 16)])
        self.up = nn.ModuleList([Up(16, 12), Up(12, 8)])
        self.pool, self.out = nn.MaxPool2d(2), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](self.pool(first))
        coarse = self.up[0](self.down[2](self.pool(second)), second)
        return self.out(self.up[1](coarse, first))


def gated(**options: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain = UNet().eval()
    model = copy.deepcopy(plain)
    planned = foveate.attach(model, "attention_gate", "up.*:skip", context="up.*:x", example=EXAMPLE, **options)
    assert [(site.name, site.shape[1], site.context) for site in planned.sites] == [
        ("up.0:skip", 12, "up.0:x"),
        ("up.1:skip", 8, "up.1:x"),
    ]
    assert planned.parameters == sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    return plain, model


def give(gate: Any, up: nn.Module, maps: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    x, skip = maps
    return x, gate(skip, x)


@pytest.mark.parametrize("options", [{}, {"transform": False}], ids=str)
def test_the_skip_is_gated_by_the_coarser_map(options: dict[str, Any]) -> None:
    plain, model = gated(**options)
    with torch.no_grad():
        assert torch.equal(model(IMAGE), plain(IMAGE)), "the identity start changes the output"
        wake(model)
        got, baked = model(IMAGE), foveate.bake(model, example=EXAMPLE)(IMAGE)
        for number in range(2):
            gate: Any = model.get_submodule(f"up.{number}.foveate_attention-skip")
            assert gate.phi.in_channels == (16, 12)[number]
            plain.get_submodule(f"up.{number}").register_forward_pre_hook(partial(give, gate))
        assert torch.equal(got, plain(IMAGE))
        torch.testing.assert_close(baked, got)


def test_an_adapter_carries_the_gates(tmp_path: Path) -> None:
    plain, model = gated()
    wake(model)
    foveate.save_adapter(model, tmp_path / "gates.safetensors")
    foveate.load_adapter(plain, tmp_path / "gates.safetensors", example=EXAMPLE)
    with torch.no_grad():
        assert torch.equal(plain(IMAGE), model(IMAGE))


def test_channels_of_the_context_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match=r"context_channels=16, the channels of 'up\.0:x'"):
        foveate.plan(UNet(), "attention_gate", "up.0:skip", context="up.0:x", example=EXAMPLE, context_channels=5)


def test_a_map_smaller_than_the_stride_is_refused() -> None:
    with pytest.raises(UsageError, match=r"(?s)at least 2 x 2 positions for attention_gate.*one of 1 x 6.*stride=1"):
        foveate.attention("attention_gate", 8)(torch.zeros(1, 8, 1, 6))
