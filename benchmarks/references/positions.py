"""Attention that weighs positions, or positions of each channel."""
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# Layers are found by their published names, which a type checker cannot follow.

import torch
from torch import Tensor, nn
from torch.nn import functional


class SpatialGate(nn.Module):
    """The spatial half of CBAM."""

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.Module()
        self.spatial.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.spatial.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the positions of x."""
        maps = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial.bn(self.spatial.conv(maps)))


class SimAM(nn.Module):
    """Attention without parameters."""

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of x by its distance from the mean."""
        distance = (x - x.mean((2, 3), keepdim=True)).pow(2)
        variance = distance.sum((2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
        return x * torch.sigmoid(distance / (4 * (variance + 1e-4)) + 0.5)


class GatherExcite(nn.Module):
    """Gather-excite without parameters, over the whole map."""

    def __init__(self, channels: int):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        return x * torch.sigmoid(functional.adaptive_avg_pool2d(x, 1))


class ESA(nn.Module):
    """Enhanced spatial attention, as in RFANet."""

    def __init__(self, channels: int):
        super().__init__()
        f = channels // 4
        self.conv1, self.conv_f, self.conv4 = nn.Conv2d(channels, f, 1), nn.Conv2d(f, f, 1), nn.Conv2d(f, channels, 1)
        self.conv2 = nn.Conv2d(f, f, 3, stride=2)
        self.conv_max, self.conv3, self.conv3_ = (nn.Conv2d(f, f, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of x."""
        narrow = self.conv1(x)
        coarse = functional.max_pool2d(self.conv2(narrow), 7, 3)
        coarse = self.conv3_(functional.relu(self.conv3(functional.relu(self.conv_max(coarse)))))
        coarse = functional.interpolate(coarse, x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(coarse + self.conv_f(narrow)))


def conv_norm(inputs: int, outputs: int) -> nn.Module:
    """Return a 1 x 1 convolution with the norm and activation of CAA."""
    layer = nn.Module()
    layer.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
    layer.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
    layer.forward = lambda x: functional.silu(layer.bn(layer.conv(x)))
    return layer


class CAA(nn.Module):
    """Context anchor attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = conv_norm(channels, channels), conv_norm(channels, channels)
        self.h_conv, self.v_conv = nn.Module(), nn.Module()
        self.h_conv.conv = nn.Conv2d(channels, channels, (1, 11), padding=(0, 5), groups=channels)
        self.v_conv.conv = nn.Conv2d(channels, channels, (11, 1), padding=(5, 0), groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of x."""
        y = self.conv1.forward(functional.avg_pool2d(x, 7, 1, 3))
        return x * torch.sigmoid(self.conv2.forward(self.v_conv.conv(self.h_conv.conv(y))))


class LKA(nn.Module):
    """Large kernel attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.conv_spatial = nn.Conv2d(channels, channels, 7, padding=9, groups=channels, dilation=3)
        self.conv1 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of x."""
        return x * self.conv1(self.conv_spatial(self.conv0(x)))


def strips(channels: int) -> list[tuple[nn.Conv2d, nn.Conv2d]]:
    """Return the pairs of depthwise strips 1 x k and k x 1 for k = 7, 11, 21."""
    return [
        (
            nn.Conv2d(channels, channels, (1, k), padding=(0, k // 2), groups=channels),
            nn.Conv2d(channels, channels, (k, 1), padding=(k // 2, 0), groups=channels),
        )
        for k in (7, 11, 21)
    ]


class MSCA(nn.Module):
    """Multi-scale convolutional attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv0 = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        for number, (wide, tall) in enumerate(strips(channels)):
            self.add_module(f"conv{number}_1", wide)
            self.add_module(f"conv{number}_2", tall)
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value of x."""
        base = self.conv0(x)
        one = self.conv0_2(self.conv0_1(base))
        two = self.conv1_2(self.conv1_1(base))
        three = self.conv2_2(self.conv2_1(base))
        return x * self.conv3(base + one + two + three)


class SMFA(nn.Module):
    """Self-modulation feature aggregation."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear_0, self.linear_1 = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(channels, channels, 1)
        self.linear_2 = nn.Conv2d(channels, channels, 1)
        self.lde = nn.Module()
        self.lde.conv_0 = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=channels), nn.Conv2d(2 * channels, 2 * channels, 1)
        )
        self.lde.conv_1 = nn.Conv2d(2 * channels, channels, 1)
        self.dw_conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.belt = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of a global and a local branch."""
        h, w = x.shape[2:]
        y0, x0 = self.linear_0(x).chunk(2, 1)
        coarse = self.dw_conv(functional.adaptive_max_pool2d(x0, (h // 8, w // 8)))
        mixed = self.linear_1(self.alpha * coarse + self.belt * x0.var((2, 3), keepdim=True))
        x1 = x0 * functional.interpolate(functional.gelu(mixed), (h, w), mode="nearest")
        y1 = self.lde.conv_1(functional.gelu(self.lde.conv_0(y0)))
        return self.linear_2(x1 + y1)
