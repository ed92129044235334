"""TwinLiteNet: road segmentation with DANet's two attentions at the end of the encoder."""

from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

import foveate


class NormPReLU(nn.Module):
    """A batch norm with eps 1e-3, then a PReLU with one slope for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.bn, self.act = nn.BatchNorm2d(channels, eps=1e-3), nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(x))


class Conv(NormPReLU):
    """A convolution, a batch norm and a PReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__(outputs)
        self.conv = plain(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.conv(x))


class Up(NormPReLU):
    """A transposed convolution that doubles the side, a batch norm and a PReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(outputs)
        self.deconv = nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.deconv(x))


class Only(nn.Module):
    """A convolution alone, under the name `conv`."""

    def __init__(self, *arguments: int):
        super().__init__()
        self.conv = plain(*arguments)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Pyramid(nn.Module):
    """Convolutions of growing dilation, each added to those before it; `c1` reduces the channels before."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int):
        super().__init__()
        narrow = outputs // 5
        self.c1 = Only(inputs, narrow, kernel, stride)
        self.d1 = Only(narrow, outputs - 4 * narrow, 3)
        self.d2, self.d4, self.d8, self.d16 = (Only(narrow, narrow, 3, 1, dilation) for dilation in (2, 4, 8, 16))

    def pyramid(self, x: Tensor) -> Tensor:
        r = self.c1(x)
        wide = accumulate(conv(r) for conv in (self.d2, self.d4, self.d8, self.d16))
        return torch.cat([self.d1(r), *wide], 1)


class Down(Pyramid):
    """A pyramid that halves the side."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, 2)
        norm = NormPReLU(outputs)
        self.bn, self.act = norm.bn, norm.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.pyramid(x)))


class Residual(Pyramid):
    """A pyramid that is added to its input."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 1, 1)
        self.bn = NormPReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x + self.pyramid(x))


class Encoder(nn.Module):
    """Images (N, 3, H, W) to features (N, 32, H / 8, W / 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.level1, self.b1 = Conv(3, 16, 3, 2), Conv(19, 19, 3)
        self.level2_0, self.level2 = Down(19, 64), nn.Sequential(Residual(64), Residual(64))
        self.b2 = Conv(131, 131, 3)
        self.level3_0, self.level3 = Down(131, 128), nn.Sequential(*(Residual(128) for _ in range(3)))
        self.b3 = Conv(256, 32, 3)
        self.sa, self.conv_sa = foveate.attention("danet", 32), Conv(32, 32, 3)
        self.sc, self.conv_sc = foveate.attention("danet", 32, pairs="channels"), Conv(32, 32, 3)
        self.classifier = Conv(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        half = avg_pool2d(x, 3, 2, 1)
        quarter = avg_pool2d(half, 3, 2, 1)
        first = self.level2_0(self.b1(torch.cat([self.level1(x), half], 1)))
        second = self.level3_0(self.b2(torch.cat([self.level2(first), first, quarter], 1)))
        x = self.b3(torch.cat([second, self.level3(second)], 1))
        return self.classifier(self.conv_sa(self.sa(x)) + self.conv_sc(self.sc(x)))


class TwinLiteNet(nn.Module):
    """Images (N, 3, H, W) to the logits of drivable area (2 channels) and of lane lines (2 channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.up_1_1, self.up_2_1, self.classifier_1 = Up(32, 16), Up(16, 8), Up(8, 2)
        self.up_1_2, self.up_2_2, self.classifier_2 = Up(32, 16), Up(16, 8), Up(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder(x)
        area = self.classifier_1(self.up_2_1(self.up_1_1(x)))
        return torch.cat([area, self.classifier_2(self.up_2_2(self.up_1_2(x)))], 1)


def plain(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Return a convolution without bias, with zeros around the map."""
    return nn.Conv2d(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
