"""EagleSR x4: super-resolution with ESA, then contrast-aware channel attention, in eight blocks."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

import foveate


class Separable(nn.Module):
    """A blueprint separable convolution: 1x1 without bias, then 3x3 of each channel."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.dw = nn.Conv2d(outputs, outputs, 3, 1, 1, groups=outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.dw(self.pw(x))


class Block(nn.Module):
    """Distilled features of four depths, mixed, then weighted by both attentions."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.c1_d, self.c2_d, self.c3_d = (nn.Conv2d(channels, half, 1) for _ in range(3))
        self.c1_r, self.c2_r, self.c3_r = (Separable(channels, channels) for _ in range(3))
        self.c4, self.c5 = Separable(channels, half), nn.Conv2d(2 * channels, channels, 1)
        self.esa = foveate.attention("esa", channels, hidden=16, form="bsrn")
        self.cca = foveate.attention("contrast", channels)

    def forward(self, x: Tensor) -> Tensor:
        t, distilled = x, []
        for distil, refine in ((self.c1_d, self.c1_r), (self.c2_d, self.c2_r), (self.c3_d, self.c3_r)):
            distilled.append(gelu(distil(t)))
            t = gelu(refine(t) + t)
        joined = torch.cat([*distilled, gelu(self.c4(t))], 1)
        return self.cca(self.esa(self.c5(joined))) + x


class Upsampler(nn.Module):
    """A convolution and a pixel shuffle under the name that the published file has."""

    def __init__(self, channels: int):
        super().__init__()
        self.upsampleOneStep = nn.Sequential(nn.Conv2d(channels, 48, 3, 1, 1), nn.PixelShuffle(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.upsampleOneStep(x)


class EagleSR(nn.Module):
    """Images (N, 3, H, W) to (N, 3, 4 H, 4 W)."""

    def __init__(self, channels: int = 64):
        super().__init__()
        self.fea_conv = Separable(12, channels)
        for number in range(1, 9):
            self.add_module(f"B{number}", Block(channels))
        self.c1, self.c2 = nn.Conv2d(8 * channels, channels, 1), Separable(channels, channels)
        self.upsampler = Upsampler(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = features = self.fea_conv(x.repeat(1, 4, 1, 1))
        outputs = []
        for number in range(1, 9):
            y = self.get_submodule(f"B{number}")(y)
            outputs.append(y)
        return self.upsampler(self.c2(gelu(self.c1(torch.cat(outputs, 1)))) + features)
