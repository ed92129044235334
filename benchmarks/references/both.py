"""Attention that weighs channels and positions, or rows and columns."""
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# Layers are found by their published names, which a type checker cannot follow.

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.references.channels import ChannelGate
from benchmarks.references.positions import SpatialGate, strips


class CBAM(nn.Module):
    """Channel attention, then spatial attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.ChannelGate, self.SpatialGate = ChannelGate(channels), SpatialGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh channels, then positions."""
        return self.SpatialGate(self.ChannelGate(x))


class SCSE(nn.Module):
    """Concurrent channel and spatial squeeze-and-excitation."""

    def __init__(self, channels: int):
        super().__init__()
        self.cSE, self.sSE = nn.Module(), nn.Module()
        self.cSE.fc1, self.cSE.fc2 = nn.Linear(channels, channels // 2), nn.Linear(channels // 2, channels)
        self.sSE.conv = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the greater of two weighted maps."""
        gate = torch.sigmoid(self.cSE.fc2(functional.relu(self.cSE.fc1(x.mean((2, 3))))))
        return torch.max(x * gate[:, :, None, None], x * torch.sigmoid(self.sSE.conv(x)))


class BAM(nn.Module):
    """Bottleneck attention."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 16
        self.channel_att, self.spatial_att = nn.Module(), nn.Module()
        self.channel_att.gate_c, self.spatial_att.gate_s = nn.Sequential(), nn.Sequential()
        for name, layer in {
            "flatten": nn.Flatten(),
            "gate_c_fc_0": nn.Linear(channels, hidden),
            "gate_c_bn_1": nn.BatchNorm1d(hidden),
            "gate_c_relu_1": nn.ReLU(),
            "gate_c_fc_final": nn.Linear(hidden, channels),
        }.items():
            self.channel_att.gate_c.add_module(name, layer)
        layers: list[tuple[str, nn.Module]] = [("reduce0", nn.Conv2d(channels, hidden, 1))]
        layers += [(f"di_{i}", nn.Conv2d(hidden, hidden, 3, padding=4, dilation=4)) for i in range(2)]
        for name, layer in layers:
            self.spatial_att.gate_s.add_module(f"gate_s_conv_{name}", layer)
            self.spatial_att.gate_s.add_module(f"gate_s_bn_{name}", nn.BatchNorm2d(hidden))
            self.spatial_att.gate_s.add_module(f"gate_s_relu_{name}", nn.ReLU())
        self.spatial_att.gate_s.add_module("gate_s_conv_final", nn.Conv2d(hidden, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value by the product of two branches."""
        channel = self.channel_att.gate_c(functional.adaptive_avg_pool2d(x, 1))[:, :, None, None]
        return x * (1 + torch.sigmoid(channel * self.spatial_att.gate_s(x)))


class Coordinate(nn.Module):
    """Coordinate attention."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(8, channels // 32)
        self.conv1, self.bn1 = nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden)
        self.conv_h, self.conv_w = nn.Conv2d(hidden, channels, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh rows and columns of each channel."""
        h, w = x.shape[2:]
        rows = functional.adaptive_avg_pool2d(x, (h, 1))
        columns = functional.adaptive_avg_pool2d(x, (1, w)).permute(0, 1, 3, 2)
        joined = functional.hardswish(self.bn1(self.conv1(torch.cat([rows, columns], 2))))
        rows, columns = joined.split([h, w], 2)
        return x * torch.sigmoid(self.conv_w(columns.permute(0, 1, 3, 2))) * torch.sigmoid(self.conv_h(rows))


class Triplet(nn.Module):
    """Triplet attention."""

    def __init__(self, channels: int):
        super().__init__()
        for name in ("cw", "hc", "hw"):
            gate = nn.Module()
            gate.conv = nn.Module()
            gate.conv.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
            gate.conv.bn = nn.BatchNorm2d(1, momentum=0.01)
            self.add_module(name, gate)

    def gate(self, gate: nn.Module, x: Tensor) -> Tensor:
        """Weigh by the maximum and the mean over the first axis after the batch."""
        maps = torch.cat([x.max(1, keepdim=True)[0], x.mean(1, keepdim=True)], 1)
        return x * torch.sigmoid(gate.conv.bn(gate.conv.conv(maps)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of three weighted maps."""
        across = self.gate(self.cw, x.permute(0, 2, 1, 3).contiguous()).permute(0, 2, 1, 3)
        down = self.gate(self.hc, x.permute(0, 3, 2, 1).contiguous()).permute(0, 3, 2, 1)
        return (self.gate(self.hw, x) + across + down) / 3


class ELA(nn.Module):
    """Efficient local attention, in the form that people copy."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 7, padding=3, groups=channels, bias=False)
        self.gn = nn.GroupNorm(16, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh rows and columns of each channel."""
        rows = torch.sigmoid(self.gn(self.conv(x.mean(3)))).unsqueeze(3)
        return x * rows * torch.sigmoid(self.gn(self.conv(x.mean(2)))).unsqueeze(2)


class EMA(nn.Module):
    """Efficient multi-scale attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.groups, width = 32, channels // 32
        self.gn = nn.GroupNorm(width, width)
        self.conv1x1, self.conv3x3 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the positions of each group of channels."""
        n, c, h, w = x.shape
        x = x.reshape(n * self.groups, -1, h, w)
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)
        rows, columns = self.conv1x1(torch.cat([rows, columns], 2)).split([h, w], 2)
        one = self.gn(x * torch.sigmoid(rows) * torch.sigmoid(columns.permute(0, 1, 3, 2)))
        two = self.conv3x3(x)
        first = torch.matmul(one.mean((2, 3)).softmax(1).unsqueeze(1), two.flatten(2))
        second = torch.matmul(two.mean((2, 3)).softmax(1).unsqueeze(1), one.flatten(2))
        weights = torch.sigmoid((first + second).view(-1, 1, h, w))
        return (x * weights).reshape(n, c, h, w)


class StripPooling(nn.Module):
    """The gate of strip pooling."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0), bias=False)
        self.conv2 = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1), bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh each value by its row and its column."""
        rows = self.bn1(self.conv1(x.mean(3, keepdim=True)))
        columns = self.bn2(self.conv2(x.mean(2, keepdim=True)))
        return x * torch.sigmoid(self.conv3(functional.relu(rows + columns)))


class Shuffle(nn.Module):
    """Shuffle attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.groups, width = 64, channels // 128
        self.cweight, self.sweight = (nn.Parameter(torch.zeros(1, width, 1, 1)) for _ in range(2))
        self.cbias, self.sbias = (nn.Parameter(torch.ones(1, width, 1, 1)) for _ in range(2))
        self.gn = nn.GroupNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh half of each group by channel and half by position, then shuffle the channels."""
        n, c, h, w = x.shape
        one, two = x.reshape(n * self.groups, -1, h, w).chunk(2, 1)
        one = one * torch.sigmoid(self.cweight * one.mean((2, 3), keepdim=True) + self.cbias)
        two = two * torch.sigmoid(self.sweight * self.gn(two) + self.sbias)
        y = torch.cat([one, two], 1).reshape(n, 2, c // 2, h, w)
        return y.transpose(1, 2).reshape(n, c, h, w)


class CPCA(nn.Module):
    """Channel prior convolutional attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.ca = nn.Module()
        self.ca.fc1, self.ca.fc2 = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
        self.dconv5_5 = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        for k, (wide, tall) in zip((7, 11, 21), strips(channels), strict=True):
            self.add_module(f"dconv1_{k}", wide)
            self.add_module(f"dconv{k}_1", tall)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh channels, then positions of each channel."""
        u = functional.gelu(self.conv(x))
        pooled = (functional.adaptive_avg_pool2d(u, 1), functional.adaptive_max_pool2d(u, 1))
        mean, greatest = (torch.sigmoid(self.ca.fc2(functional.relu(self.ca.fc1(z)))) for z in pooled)
        u = u * (mean + greatest)
        v = self.dconv5_5(u)
        s = v + self.dconv7_1(self.dconv1_7(v)) + self.dconv11_1(self.dconv1_11(v)) + self.dconv21_1(self.dconv1_21(v))
        return self.conv(self.conv(s) * u)


class SCSA(nn.Module):
    """Spatial and channel synergistic attention."""

    def __init__(self, channels: int):
        super().__init__()
        quarter = channels // 4
        for name, k in {"local_dwc": 3, "global_dwc_s": 5, "global_dwc_m": 7, "global_dwc_l": 9}.items():
            self.add_module(name, nn.Conv1d(quarter, quarter, k, padding=k // 2, groups=quarter))
        self.norm_h, self.norm_w, self.norm = (
            nn.GroupNorm(4, channels),
            nn.GroupNorm(4, channels),
            nn.GroupNorm(1, channels),
        )
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1, groups=channels, bias=False) for _ in range(3))

    def profile(self, line: Tensor) -> Tensor:
        """Convolve each quarter of the channels along a line."""
        one, two, three, four = line.chunk(4, 1)
        return torch.cat(
            [self.local_dwc(one), self.global_dwc_s(two), self.global_dwc_m(three), self.global_dwc_l(four)], 1
        )

    def forward(self, x: Tensor) -> Tensor:
        """Weigh rows and columns, then channels."""
        rows = torch.sigmoid(self.norm_h(self.profile(x.mean(3)))).unsqueeze(3)
        columns = torch.sigmoid(self.norm_w(self.profile(x.mean(2)))).unsqueeze(2)
        x = x * rows * columns
        y = self.norm(functional.avg_pool2d(x, 7, 7))
        q, k, v = (layer(y).flatten(2) for layer in (self.q, self.k, self.v))
        attention = (q @ k.transpose(1, 2) * x.shape[1] ** -0.5).softmax(2)
        return x * torch.sigmoid((attention @ v).mean(2)[:, :, None, None])


class Polarized(nn.Module):
    """Polarized self-attention, the channels before the positions."""

    def __init__(self, channels: int):
        super().__init__()
        half, hidden = channels // 2, channels // 8
        self.conv_q_right, self.conv_v_right = (
            nn.Conv2d(channels, 1, 1, bias=False),
            nn.Conv2d(channels, half, 1, bias=False),
        )
        self.conv_up = nn.Sequential(
            nn.Conv2d(half, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )
        self.conv_q_left, self.conv_v_left = (nn.Conv2d(channels, half, 1, bias=False) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels, then the positions of the result."""
        n, _, h, w = x.shape
        shares = self.conv_q_right(x).flatten(2).softmax(2)
        context = torch.matmul(self.conv_v_right(x).flatten(2), shares.transpose(1, 2)).unsqueeze(3)
        x = x * torch.sigmoid(self.conv_up(context))
        query = self.conv_q_left(x).mean((2, 3)).unsqueeze(1)
        spatial = torch.matmul(query, self.conv_v_left(x).flatten(2).softmax(2)).view(n, 1, h, w)
        return x * torch.sigmoid(spatial)
