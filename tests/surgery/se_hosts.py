"""Hosts that have attention of their own."""

import torch
from torch import Tensor, nn

from surgery import hosts


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Gate(SqueezeExcite):
    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x)


class Swish(nn.Module):
    """Weighs its input too, but learns nothing."""

    def __init__(self):
        super().__init__()
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(x)


class Block(hosts.Block):
    """A residual block with SE at its end."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(inputs, outputs, stride)
        self.se, self.relu = SqueezeExcite(outputs), Swish()

    def attend(self, x: Tensor) -> Tensor:
        return self.se(x)

    def forward(self, x: Tensor) -> Tensor:
        y = self.attend(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        return self.relu(y + self.shortcut(x))


class Gated(Block):
    """A block that multiplies by the gate itself."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(inputs, outputs, stride)
        self.se = Gate(outputs)

    def attend(self, x: Tensor) -> Tensor:
        return x * self.se(x)


class Reading(Block):
    """A block that reads an attribute of its SE."""

    def attend(self, x: Tensor) -> Tensor:
        return self.se(x) + 0 * self.se.reduce.weight.sum()  # pyright: ignore[reportAttributeAccessIssue]


class Named(Block):
    """A block that calls its SE by keyword."""

    def attend(self, x: Tensor) -> Tensor:
        return self.se(x=x)


class Unregistered(Block):
    """A block that calls its SE by a reference that is no child."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__(inputs, outputs, stride)
        self.calls = [self.se]

    def attend(self, x: Tensor) -> Tensor:
        return self.calls[0](x)


class Hidden(nn.Module):
    """A network that calls a module without children by a reference that is no child."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = hosts.conv(3, 8), nn.Identity()
        self.calls = [self.norm]

    def forward(self, x: Tensor) -> Tensor:
        return self.calls[0](self.conv(x))


class Idle(Block):
    """A block that does not run its SE."""

    def attend(self, x: Tensor) -> Tensor:
        return x


class Shared(nn.Module):
    """One SE that two parents have as a child, and that runs three times."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.head = hosts.conv(3, 8), SqueezeExcite(8), nn.Sequential(hosts.conv(8, 8))
        self.head.append(self.first)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(self.first(self.stem(x)))).mean((2, 3))


class Listed(nn.Sequential):
    """SE as a sequence whose forward weighs the input."""

    def forward(self, input: Tensor) -> Tensor:
        return input * super().forward(input)


class ScSE(nn.Module):
    """A gate for the channels and one for the positions, whose products are added."""

    def __init__(self, channels: int):
        super().__init__()
        self.channel, self.spatial = Gate(channels), nn.Sequential(nn.Conv2d(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channel(x) + x * self.spatial(x)


class Wrapper(nn.Module):
    """A module that only runs another one."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)
