"""Attention that weighs channels."""
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# Layers are found by their published names, which a type checker cannot follow.

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class SE(nn.Module):
    """Squeeze-and-Excitation."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 16
        self.down, self.up = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        return x * torch.sigmoid(self.up(functional.relu(self.down(functional.adaptive_avg_pool2d(x, 1)))))


class ECA(nn.Module):
    """Efficient channel attention."""

    def __init__(self, channels: int):
        super().__init__()
        size = int((math.log2(channels) + 1) / 2)
        size += 1 - size % 2
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        pooled = functional.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(1, 2)
        return x * torch.sigmoid(self.conv(pooled).transpose(1, 2).unsqueeze(-1))


class ChannelGate(nn.Module):
    """The channel half of CBAM."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 16
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        mean, greatest = functional.adaptive_avg_pool2d(x, 1), functional.adaptive_max_pool2d(x, 1)
        return x * torch.sigmoid(self.mlp(mean) + self.mlp(greatest))[:, :, None, None]


class ESE(nn.Module):
    """Effective SE."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        return x * functional.hardsigmoid(self.fc(functional.adaptive_avg_pool2d(x, 1)))


class SRM(nn.Module):
    """Style-based recalibration."""

    def __init__(self, channels: int):
        super().__init__()
        self.cfc = nn.Parameter(torch.zeros(channels, 2))
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        flat = x.flatten(2)
        style = torch.stack([flat.mean(2), (flat.var(2) + 1e-5).sqrt()], 2)
        return x * torch.sigmoid(self.bn((style * self.cfc).sum(2)[:, :, None, None]))


class GCT(nn.Module):
    """Gated channel transformation."""

    def __init__(self, channels: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        energy = (x.pow(2).sum((2, 3), keepdim=True) + 1e-5).sqrt() * self.alpha
        norm = self.gamma / (energy.pow(2).mean(1, keepdim=True) + 1e-5).sqrt()
        return x * (1 + torch.tanh(energy * norm + self.beta))


class LCT(nn.Module):
    """Linear context transform."""

    def __init__(self, channels: int, groups: int = 8):
        super().__init__()
        self.groups = groups
        self.w, self.b = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        pooled = functional.adaptive_avg_pool2d(x, 1).view(len(x), self.groups, -1)
        pooled = (pooled - pooled.mean(2, keepdim=True)) / (pooled.var(2, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * torch.sigmoid(self.w * pooled.flatten(1) + self.b)[:, :, None, None]


class Contrast(nn.Module):
    """Contrast-aware channel attention."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 16
        self.conv_du = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        mean = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.conv_du((x - mean).pow(2).mean((2, 3), keepdim=True).sqrt() + mean))


class FCA(nn.Module):
    """Frequency channel attention, with the 16 frequencies of the released networks on a 7 x 7 grid."""

    across = (0, 0, 6, 0, 0, 1, 1, 4, 5, 1, 3, 0, 0, 0, 3, 2)
    down = (0, 1, 0, 5, 2, 0, 2, 0, 0, 6, 0, 4, 6, 3, 5, 2)

    def __init__(self, channels: int, size: int = 7):
        super().__init__()
        self.size, hidden = size, channels // 16
        rows = [self.wave(u * (size // 7)) for u in self.across]
        columns = [self.wave(v * (size // 7)) for v in self.down]
        waves = torch.stack([torch.outer(row, column) for row, column in zip(rows, columns, strict=True)])
        self.dct_layer = nn.Module()
        self.dct_layer.register_buffer("weight", waves.repeat_interleave(channels // 16, 0))
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def wave(self, frequency: int) -> Tensor:
        """Return one cosine of the discrete cosine transform."""
        places = torch.arange(self.size) + 0.5
        scale = math.sqrt((2 if frequency else 1) / self.size)
        return scale * torch.cos(math.pi * frequency * places / self.size)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x."""
        pooled = x if x.shape[2:] == (self.size, self.size) else functional.adaptive_avg_pool2d(x, self.size)
        return x * self.fc((pooled * self.dct_layer.weight).sum((2, 3)))[:, :, None, None]


class GlobalContext(nn.Module):
    """Global context: it adds to every position."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 16
        self.conv_mask = nn.Conv2d(channels, 1, 1)
        self.channel_add_conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.LayerNorm([hidden, 1, 1]), nn.ReLU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the context to x."""
        shares = self.conv_mask(x).flatten(2).softmax(2)
        context = torch.matmul(x.flatten(2), shares.transpose(1, 2)).unsqueeze(3)
        return x + self.channel_add_conv(context)


class NAM(nn.Module):
    """Normalisation-based attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.Channel_Att = nn.Module()
        self.Channel_Att.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh x by its normalised values."""
        norm = self.Channel_Att.bn2
        weight = norm.weight.data.abs()
        return x * torch.sigmoid(norm(x) * (weight / weight.sum())[:, None, None])


class MLCA(nn.Module):
    """Mixed local channel attention."""

    def __init__(self, channels: int):
        super().__init__()
        size = int((math.log2(channels) + 1) / 2)
        size += 1 - size % 2
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)
        self.conv_local = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh the channels of x in each of 5 x 5 cells."""
        n, c = x.shape[:2]
        cells = functional.adaptive_avg_pool2d(x, 5)
        whole = self.conv(cells.mean((2, 3)).unsqueeze(1)).view(n, c, 1, 1)
        local = self.conv_local(cells.flatten(2).transpose(1, 2).reshape(n, 1, -1)).view(n, 25, c)
        gate = torch.sigmoid(local).transpose(1, 2).view(n, c, 5, 5) / 2 + torch.sigmoid(whole) / 2
        return x * functional.adaptive_avg_pool2d(gate, x.shape[2:])
