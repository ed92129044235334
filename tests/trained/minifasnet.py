"""MiniFASNet V1SE and V2, small face anti-spoofing networks, without their attention."""

from torch import Tensor, nn


class ConvNorm(nn.Module):
    """A convolution without bias, a batch norm and, by default, a PReLU with one slope for each channel."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, padding: int, groups: int = 1, active: bool = True
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.prelu(self.bn(self.conv(x)))


class Inverted(nn.Module):
    """An inverted residual block, from `inputs` through `wide` to `outputs` channels."""

    def __init__(self, inputs: int, wide: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv = ConvNorm(inputs, wide, 1, 1, 0)
        self.conv_dw = ConvNorm(wide, wide, 3, stride, 1, groups=wide)
        self.project = ConvNorm(wide, outputs, 1, 1, 0, active=False)
        self.residual = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.residual else y


class Stage(nn.Module):
    """Inverted residual blocks of the same channels."""

    def __init__(self, channels: int, wide: tuple[int, ...]):
        super().__init__()
        self.model = nn.Sequential(*(Inverted(channels, one, channels) for one in wide))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class MiniFASNet(nn.Module):
    """Faces (N, 3, 80, 80) to three logits; `wide` has the inner channels of the blocks of each stage."""

    def __init__(self, *wide: tuple[int, ...]):
        super().__init__()
        self.conv1, self.conv2_dw = ConvNorm(3, 32, 3, 2, 1), ConvNorm(32, 32, 3, 1, 1, groups=32)
        self.conv_23, self.conv_3 = Inverted(32, 103, 64, 2), Stage(64, wide[0])
        self.conv_34, self.conv_4 = Inverted(64, 231, 128, 2), Stage(128, wide[1])
        self.conv_45, self.conv_5 = Inverted(128, 308, 128, 2), Stage(128, wide[2])
        self.conv_6_sep = ConvNorm(128, 512, 1, 1, 0)
        self.conv_6_dw = ConvNorm(512, 512, 5, 1, 0, groups=512, active=False)
        self.linear, self.bn = nn.Linear(512, 128, bias=False), nn.BatchNorm1d(128)
        self.prob = nn.Linear(128, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(x))))
        x = self.conv_5(self.conv_45(self.conv_4(self.conv_34(x))))
        return self.prob(self.bn(self.linear(self.conv_6_dw(self.conv_6_sep(x)).flatten(1))))


def v1se() -> MiniFASNet:
    """Return the host of V1SE: SE belongs at the end of the last block of each stage."""
    return MiniFASNet((13, 26, 13, 52), (154, 52, 26, 52, 26, 26), (26, 26))


def v2() -> MiniFASNet:
    """Return V2, which has no attention."""
    return MiniFASNet((13, 13, 13, 13), (231, 52, 26, 77, 26, 26), (26, 26))
