"""Attention between pairs of positions, between channels, between branches, and between two maps."""
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportArgumentType=false
# Layers are found by their published names, which a type checker cannot follow.

import torch
from torch import Tensor, nn
from torch.nn import functional


class Double(nn.Module):
    """Double attention, with the last convolution of the paper."""

    def __init__(self, channels: int):
        super().__init__()
        self.convA, self.convB, self.convV = (nn.Conv2d(channels, channels // 4, 1) for _ in range(3))
        self.conv_reconstruct = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Gather features and give them to each position."""
        n, _, h, w = x.shape
        gathered = torch.bmm(self.convA(x).flatten(2), self.convB(x).flatten(2).softmax(2).transpose(1, 2))
        y = torch.bmm(gathered, self.convV(x).flatten(2).softmax(1)).view(n, -1, h, w)
        return self.conv_reconstruct(y)


class QueryKeyValue(nn.Module):
    """The layers of criss-cross attention and of DANet's position attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.query_conv, self.key_conv = (nn.Conv2d(channels, channels // 8, 1) for _ in range(2))
        self.value_conv = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))


class CrissCross(QueryKeyValue):
    """Criss-cross attention, once."""

    def forward(self, x: Tensor) -> Tensor:
        """Let each position attend to its row and column."""
        q, k, v = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        h, w = x.shape[2:]
        down = torch.einsum("nchw,ncgw->nhwg", q, k)
        down = down.masked_fill(torch.eye(h, dtype=torch.bool, device=x.device)[:, None, :], float("-inf"))
        shares = torch.cat([down, torch.einsum("nchw,nchg->nhwg", q, k)], 3).softmax(3)
        columns, rows = shares.split([h, w], 3)
        y = torch.einsum("nhwg,ncgw->nchw", columns, v) + torch.einsum("nhwg,nchg->nchw", rows, v)
        return self.gamma * y + x


class Position(QueryKeyValue):
    """DANet's position attention."""

    def forward(self, x: Tensor) -> Tensor:
        """Let each position attend to all."""
        n, c, h, w = x.shape
        shares = torch.bmm(self.query_conv(x).flatten(2).transpose(1, 2), self.key_conv(x).flatten(2)).softmax(2)
        y = torch.bmm(self.value_conv(x).flatten(2), shares.transpose(1, 2)).view(n, c, h, w)
        return self.gamma * y + x


class NonLocal(nn.Module):
    """A non-local block on a pooled map."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.theta, self.phi, self.g = (nn.Conv2d(channels, half, 1) for _ in range(3))
        self.out, self.bn = nn.Conv2d(half, channels, 1), nn.BatchNorm2d(channels, eps=1.0000001e-5)

    def forward(self, x: Tensor) -> Tensor:
        """Let each position attend to the pooled map."""
        n, _, h, w = x.shape
        pooled = functional.max_pool2d(x, 2)
        q, k, v = self.theta(x).flatten(2), self.phi(pooled).flatten(2), self.g(pooled).flatten(2)
        shares = (torch.bmm(q.transpose(1, 2), k) * q.shape[1] ** -0.5).softmax(2)
        return x + self.bn(self.out(torch.bmm(v, shares.transpose(1, 2)).view(n, -1, h, w)))


class SK(nn.Module):
    """The selective kernel unit."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = max(channels // 16, 32)
        self.conv0 = nn.Conv2d(channels, channels, 3, padding=1, groups=32, bias=False)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=2, dilation=2, groups=32, bias=False)
        self.bn0, self.bn1, self.fc_bn = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels), nn.BatchNorm2d(hidden)
        self.fc1, self.fc2 = nn.Conv2d(channels, hidden, 1, bias=False), nn.Conv2d(hidden, 2 * channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weigh two branches for each channel."""
        branches = torch.stack([functional.relu(self.bn0(self.conv0(x))), functional.relu(self.bn1(self.conv1(x)))], 1)
        pooled = branches.sum(1).mean((2, 3), keepdim=True)
        logits = self.fc2(functional.relu(self.fc_bn(self.fc1(pooled))))
        return (branches * logits.view(len(x), 2, -1, 1, 1).softmax(1)).sum(1)


class CoT(nn.Module):
    """The contextual transformer layer."""

    def __init__(self, channels: int):
        super().__init__()
        hidden, shared = max(channels // 2, 32), channels // 8
        self.key_embed = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=4, bias=False), nn.BatchNorm2d(channels), nn.ReLU()
        )
        self.embed = nn.Sequential(
            nn.Conv2d(2 * channels, channels // 2, 1, bias=False),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
            nn.Conv2d(channels // 2, 9 * shared, 1),
            nn.GroupNorm(shared, 9 * shared),
        )
        self.conv1x1 = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.bn = nn.BatchNorm2d(channels)
        self.se = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, 2 * channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with weights of each position, and weigh the result against the keys."""
        n, c, h, w = x.shape
        k = self.key_embed(x)
        weights = self.embed(torch.cat([x, k], 1)).view(n, 1, c // 8, 9, h, w)
        windows = functional.unfold(self.conv1x1(x), 3, padding=1).view(n, 8, c // 8, 9, h, w)
        y = functional.silu(self.bn((windows * weights).sum(3).view(n, c, h, w)))
        both = torch.stack([y, k], 2)
        logits = self.se(both.sum(2).mean((2, 3), keepdim=True)).view(n, c, 2, 1, 1)
        return (both * logits.softmax(2)).sum(2)


def conv_bn(channels: int, kernel: int) -> nn.Module:
    """Return a convolution with its norm."""
    layer = nn.Module()
    layer.conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
    layer.bn = nn.BatchNorm2d(channels)
    return layer


class ParNet(nn.Module):
    """The block of ParNet."""

    def __init__(self, channels: int):
        super().__init__()
        self.rbr_identity = nn.BatchNorm2d(channels)
        self.rbr_dense, self.rbr_1x1 = conv_bn(channels, 3), conv_bn(channels, 1)
        self.se = nn.Module()
        self.se.cvsig = nn.Module()
        self.se.cvsig.conv = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Sum two convolutions and the weighted norm of x."""
        i = self.rbr_identity(x)
        gated = i * torch.sigmoid(self.se.cvsig.conv(functional.adaptive_avg_pool2d(i, 1)))
        dense = self.rbr_dense.bn(self.rbr_dense.conv(x))
        return functional.silu(dense + self.rbr_1x1.bn(self.rbr_1x1.conv(x)) + gated)


class AttentionGate(nn.Module):
    """The attention gate of U-Nets."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.theta = nn.Conv2d(channels, half, 2, stride=2, bias=False)
        self.phi, self.psi = nn.Conv2d(channels, half, 1), nn.Conv2d(half, 1, 1)
        self.W = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor, g: Tensor | None = None) -> Tensor:
        """Weigh the positions of x by a coarser map, or by x itself."""
        t, g = self.theta(x), x if g is None else g
        p = functional.interpolate(self.phi(g), t.shape[2:], mode="bilinear", align_corners=False)
        a = torch.sigmoid(self.psi(functional.relu(t + p)))
        return self.W(functional.interpolate(a, x.shape[2:], mode="bilinear", align_corners=False) * x)
