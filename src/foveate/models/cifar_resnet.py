"""The residual network for small images from He et al. 2015, section 4.2."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.errors import UsageError

DEPTHS = (8, 14, 20, 32, 44, 56, 110)


class CifarResNet(nn.Module):
    """Three stages of basic blocks, 6n + 2 layers deep: images (N, channels, H, W) -> logits (N, classes).

    The stages have `width`, 2 `width` and 4 `width` channels at full, half and quarter resolution. A shortcut that
    changes the shape takes every second position and pads the channels with zeros (option A), so it has no parameters.
    The modules have the names of the widely used public checkpoints, so these load strictly. H and W are free.

    Raises:
        UsageError: a depth that is not 6n + 2, or an odd or non-positive width.
    """

    def __init__(self, depth: int = 20, classes: int = 10, channels: int = 3, width: int = 16):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            usual = ", ".join(map(str, DEPTHS))
            raise UsageError(
                expected="a depth of 6n + 2 layers", received=f"depth={depth}", do=f"choose one of {usual}"
            )
        if width < 2 or width % 2:
            raise UsageError(expected="an even width of at least 2", received=f"width={width}", do="use the paper's 16")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images (N, channels, H, W): logits (N, classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut without parameters: (N, inputs, H, W) -> (N, outputs, H', W').

    H' is H / stride, rounded up, and W' likewise.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = ZeroPadded(outputs - inputs, stride) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch to the shortcut."""
        branch = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(branch + self.shortcut(x))


class ZeroPadded(nn.Module):
    """Every `stride`-th position, with `added` channels of zeros, half of them before and half after."""

    def __init__(self, added: int, stride: int):
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad x (N, C, H, W)."""
        x = x[:, :, :: self.stride, :: self.stride]
        zeros = torch.zeros_like(x[:, :1]).expand(-1, self.added // 2, -1, -1)
        return torch.cat([zeros, x, zeros], 1)

    def extra_repr(self) -> str:
        """Show the two numbers when printed."""
        return f"added={self.added}, stride={self.stride}"


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        BasicBlock(inputs, outputs, stride), *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1))
    )
