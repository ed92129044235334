"""Networks with the structure and the names of published code, written anew: hosts, and where their attention is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

Make = Callable[[int], nn.Module]


class Linears(nn.Module):
    """SE as SENet-style code has it: a sequence of two linear layers without biases."""

    def __init__(self, channels: int, reduction: int = 16, bias: bool = False):
        super().__init__()
        hidden = channels // reduction
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, channels, bias=bias), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


class WithActivation(nn.Module):
    """A 1x1 convolution with its activation, named as OpenMMLab's."""

    def __init__(self, inputs: int, outputs: int, activate: nn.Module):
        super().__init__()
        self.conv, self.activate = nn.Conv2d(inputs, outputs, 1), activate

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(self.conv(x))


class OpenMMLab(nn.Module):
    """SE as OpenMMLab has it: two 1x1 convolutions with biases, each in a module with its activation."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.conv1 = WithActivation(channels, channels // reduction, nn.ReLU())
        self.conv2 = WithActivation(channels // reduction, channels, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(x.mean((2, 3), keepdim=True)))


class Eca(nn.Module):
    """ECA as ECA-Net has it; the kernel size is given for each stage."""

    def __init__(self, channels: int, kernel: int = 3):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3))[:, None])[:, 0]
        return x * y.sigmoid()[:, :, None, None]


class ChannelGate(nn.Module):
    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        hidden = channels // reduction
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        pools = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return x * (self.mlp(pools[0]) + self.mlp(pools[1])).sigmoid()[:, :, None, None]


class Spatial(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(2, 1, 7, padding=3, bias=False), nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class SpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = Spatial()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.spatial(torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)).sigmoid()


class Cbam(nn.Module):
    """CBAM with the names of the released networks."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.ChannelGate, self.SpatialGate = ChannelGate(channels, reduction), SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return self.SpatialGate(self.ChannelGate(x))


class Coordinate(nn.Module):
    """Coordinate attention; `names` are those of the last two convolutions."""

    def __init__(self, channels: int, names: tuple[str, str] = ("conv_h", "conv_w")):
        super().__init__()
        hidden = max(8, channels // 32)
        self.conv1, self.bn1, self.names = nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), names
        for name in names:
            self.add_module(name, nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)], 2)
        h, w = nn.functional.hardswish(self.bn1(self.conv1(joined))).split(x.shape[2:], 2)
        rows, columns = (self.get_submodule(name) for name in self.names)
        return x * rows(h).sigmoid() * columns(w.transpose(2, 3)).sigmoid()


class AttentionBlock(BasicBlock):
    """torchvision's block with attention of a given name before the addition."""

    make: Make
    named: str

    def __init__(self, inplanes: int, planes: int, *rest: Any, **more: Any):
        super().__init__(inplanes, planes, *rest, **more)
        self.add_module(self.named, self.make(planes))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y = self.get_submodule(self.named)(y)
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class AttentionBottleneck(Bottleneck):
    """The same of the larger block."""

    make: Make
    named: str

    def __init__(self, inplanes: int, planes: int, *rest: Any, **more: Any):
        super().__init__(inplanes, planes, *rest, **more)
        self.add_module(self.named, self.make(planes * self.expansion))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        y = self.get_submodule(self.named)(self.bn3(self.conv3(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


def published_resnet(named: str, make: Make, *, kind: Any = AttentionBlock) -> ResNet:
    """Return a ResNet of two stages whose blocks have attention of that name."""
    return plain_resnet(kind=type("Block", (kind,), {"named": named, "make": staticmethod(make)}))


def plain_resnet(*, kind: Any = BasicBlock) -> ResNet:
    """Return torchvision's ResNet of two stages, one block each."""
    net = ResNet(kind, [1, 1, 1, 1])
    net.layer3, net.layer4 = nn.Sequential(), nn.Sequential()
    net.fc = nn.Linear(128 * kind.expansion, 10)
    return net


class MobileBlock(nn.Module):
    """A block of MobileNetV2 as one sequence, with or without a module after the second activation."""

    def __init__(self, channels: int, make: Make | None):
        super().__init__()
        wide = 2 * channels
        steps = [nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        steps += [nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()]
        steps += [] if make is None else [make(wide)]
        self.conv = nn.Sequential(*steps, nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def mobile(make: Make | None = None) -> nn.Module:
    """Return a small MobileNetV2-like network: attention stands inside the sequences, and moves what comes after."""
    features = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), MobileBlock(16, make), MobileBlock(16, make))
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    names = ("features", "classifier")
    net = nn.Sequential()
    for name, module in zip(names, (features, pooled), strict=True):
        net.add_module(name, module)
    return net


mobile_coordinate = partial(Coordinate, names=("conv2", "conv3"))
