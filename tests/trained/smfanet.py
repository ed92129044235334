"""SMFANet x2: super-resolution with SMFA in eight blocks."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

import foveate


class PCFN(nn.Module):
    """An MLP whose 3x3 convolution sees a quarter of the hidden channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_0, self.conv_2 = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)
        self.conv_1 = nn.Conv2d(channels // 2, channels // 2, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        part = self.conv_1.in_channels
        near, rest = gelu(self.conv_0(x)).tensor_split([part], 1)
        return self.conv_2(torch.cat([gelu(self.conv_1(near)), rest], 1))


class Block(nn.Module):
    """SMFA and an MLP, each on the map with length 1 at each position, each added to its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.smfa, self.pcfn = foveate.attention("smfa", channels), PCFN(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.smfa(normalize(x))
        return x + self.pcfn(normalize(x))


class SMFANet(nn.Module):
    """Images (N, 3, H, W) to (N, 3, 2 H, 2 W)."""

    def __init__(self, channels: int = 36, blocks: int = 8):
        super().__init__()
        self.to_feat = nn.Conv2d(3, channels, 3, 1, 1)
        self.feats = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.to_img = nn.Sequential(nn.Conv2d(channels, 12, 3, 1, 1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.to_feat(x)
        return self.to_img(self.feats(x) + x)
