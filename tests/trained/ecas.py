"""ECAS x4: super-resolution with a residual ECA and a gated channel transformation (GCT) after most convolutions."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

import foveate


class Conv(nn.Module):
    """A 3x3 convolution under the name that the published file has."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.eval_conv = nn.Conv2d(inputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.eval_conv(x)


class Block(nn.Module):
    """Three convolutions, each with a GCT; returns the output and the first convolution's result."""

    def __init__(self, channels: int):
        super().__init__()
        self.c1_r, self.c2_r, self.c3_r = (Conv(channels, channels) for _ in range(3))
        self.gct1, self.gct2, self.gct3 = (foveate.attention("gct", channels) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = self.c1_r(x)
        y = self.gct3(self.c3_r(silu(self.gct2(self.c2_r(silu(self.gct1(first)))))))
        return (y + x) * (y.sigmoid() - 0.5), first


class Added(nn.Module):
    """A map, and attention of it, added."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x)


class ECAS(nn.Module):
    """Images (N, 3, H, W) to (N, 3, 4 H, 4 W)."""

    MEANS: ClassVar = (0.4488, 0.4371, 0.4040)

    def __init__(self, channels: int = 40):
        super().__init__()
        self.conv_1, self.conv_2 = Conv(3, channels), Conv(channels, channels)
        for number in range(1, 7):
            self.add_module(f"block_{number}", Block(channels))
        self.eca = Added(foveate.attention("eca", 4 * channels))
        self.conv_cat = nn.Conv2d(4 * channels, channels, 1)
        self.upsampler = nn.Sequential(nn.Conv2d(channels, 48, 3, 1, 1), nn.PixelShuffle(4))

    def forward(self, x: Tensor) -> Tensor:
        means = torch.tensor(self.MEANS, dtype=torch.float32).to(x)
        y = features = self.conv_1(x - means[:, None, None])
        outputs, firsts = [], []
        for number in range(1, 7):
            y, first = self.get_submodule(f"block_{number}")(y)
            outputs.append(y)
            firsts.append(first)
        joined = torch.cat([features, self.conv_2(outputs[-1]), outputs[0], firsts[-1]], 1)
        return self.upsampler(self.conv_cat(self.eca(joined)))
