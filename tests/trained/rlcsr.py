"""RLCSR x4: super-resolution with ESA in six blocks and one CBAM whose two gates read the same map."""

import torch
from torch import Tensor, nn
from torch.nn.functional import channel_shuffle, interpolate, selu
from torch.nn.utils.parametrizations import weight_norm

import foveate


class Tri(nn.Module):
    """The sum of convolutions of 1x3, 3x1 and 3x3 positions, under the given names."""

    def __init__(self, names: tuple[str, str, str], inputs: int, outputs: int, bias: bool = False):
        super().__init__()
        for name, size in zip(names, ((1, 3), (3, 1), (3, 3)), strict=True):
            self.add_module(name, nn.Conv2d(inputs, outputs, size, padding=(size[0] // 2, size[1] // 2), bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = (conv(x) for conv in self.children())
        return first + second + third


class Block(nn.Module):
    """Distilled features of four depths, mixed, then weighted by ESA; all convolutions with weight norm."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.c1_d, self.c2_d, self.c3_d = (normed(channels, half, 1) for _ in range(3))
        self.c1_r, self.c2_r, self.c3_r = (normed(channels, channels, 3) for _ in range(3))
        self.c4, self.c5 = normed(channels, half, 3), normed(2 * channels, channels, 1)
        self.esa = foveate.attention("esa", channels, form="rlcsr")

    def forward(self, x: Tensor) -> Tensor:
        t, distilled = x, []
        for distil, refine in ((self.c1_d, self.c1_r), (self.c2_d, self.c2_r), (self.c3_d, self.c3_r)):
            distilled.append(activated(distil(t)))
            t = activated(refine(t) + t)
        return self.esa(self.c5(torch.cat([*distilled, activated(self.c4(t))], 1)))


class LayerScale(nn.Module):
    """1 + gamma times the map: attention over layers, of which there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.gamma)


class RLCSR(nn.Module):
    """Images (N, 3, H, W) of 0 to 255 to (N, 3, 4 H, 4 W)."""

    def __init__(self, channels: int = 32):
        super().__init__()
        self.head = Tri(("conv1_1", "conv1_2", "conv1_3"), 3, channels)
        for number in range(1, 7):
            self.add_module(f"B{number}", Block(channels))
        self.c = nn.Sequential(nn.Conv2d(6 * channels, channels, 1))
        self.la = LayerScale()
        self.layers = Tri(("convl11", "convl22", "convl33"), channels, channels)
        for number in range(1, 6):
            self.add_module(f"reduction{number}", normed(2 * channels, channels, 1))
        double = 2 * channels
        gates = {"reduction": 6, "bias": False, "norm": False, "order": "parallel"}
        self.BAM = foveate.attention("cbam", double, **gates)
        self.join = Tri(("convl1", "convl2", "convl3"), double, channels)
        self.upsampler = nn.Sequential(
            Tri(("conv1_1", "conv1_2", "conv1_3"), channels, 48, bias=True), nn.PixelShuffle(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.get_submodule("B1")(self.head(x))
        outputs = [y]
        for number in range(2, 7):
            y = self.get_submodule(f"B{number}")(y) + y
            outputs.append(y)
        wide = self.layers(self.la(activated(self.c(torch.cat(outputs, 1)))))
        chain = outputs[0]
        for number in range(1, 6):
            mixed = channel_shuffle(torch.cat([chain, outputs[number]], 1), 2)
            chain = self.get_submodule(f"reduction{number}")(mixed)
        gated = self.BAM(torch.cat([wide, chain], 1))
        return self.upsampler(self.join(gated)) + interpolate(x, scale_factor=4, mode="bicubic")


def normed(inputs: int, outputs: int, kernel: int) -> nn.Module:
    """Return a convolution with weight norm."""
    return weight_norm(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2))


def activated(x: Tensor) -> Tensor:
    """Return the map after the network's activation."""
    return selu(x)
