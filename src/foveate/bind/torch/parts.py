"""The parts of `foveate.parts` as torch modules."""

from typing import Any

import torch
from torch import Tensor, nn

from foveate import parts
from foveate.kernels.torch_modules import computes
from foveate.parts import GateKind, Start


@computes
class Gate(nn.Module):
    """x * scale * sigmoid(logits): scale 1 is the published gate; scale 2 makes the gate 1 where the logits are 0."""

    def __init__(self, kind: GateKind, scale: float = 1.0):
        super().__init__()
        self.kind, self.scale = kind, scale

    def gate(self, logits: Tensor) -> Tensor:
        """Return the gate: (N, C, 1, 1), (N, 1, H, W), (N, C, H, 1) or (N, C, 1, W), by `kind`."""
        gate = torch.sigmoid(logits)
        return gate if self.scale == 1 else self.scale * gate

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """Scale x (N, C, H, W) by the gate of logits that broadcast against it."""
        return x * self.gate(logits)

    def extra_repr(self) -> str:
        """Describe the module in its repr."""
        return f"{self.kind}, scale={self.scale:g}"


class Replace(nn.Module):
    """Replace x by y. With the identity start return x + y, where y is 0 before training."""

    def __init__(self, start: Start = "paper"):
        super().__init__()
        self.start: Start = start

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y, or x + y, both (N, C, H, W)."""
        return y if self.start == "paper" else x + y


class TorchParts(parts.Maker[nn.Module]):
    """Make the modules of parts; `factory` holds their device and dtype."""

    def __init__(self, start: Start, **factory: Any):
        self.start, self.factory = start, factory

    def conv(self, part: parts.Conv, path: str) -> nn.Module:
        padding = part.kernel // 2
        layer = nn.Conv2d(part.inputs, part.outputs, part.kernel, padding=padding, bias=part.bias, **self.factory)
        return self._first(layer, part)

    def channel_conv(self, part: parts.ChannelConv, path: str) -> nn.Module:
        return self._first(nn.Conv1d(1, 1, part.kernel, padding=part.kernel // 2, bias=part.bias, **self.factory), part)

    def norm(self, part: parts.Norm, path: str) -> nn.Module:
        return self._first(nn.BatchNorm2d(part.channels, eps=part.eps, momentum=part.momentum, **self.factory), part)

    def gate(self, part: parts.Gate, path: str) -> nn.Module:
        return Gate(part.kind, part.scale(self.start))

    def replace(self, part: parts.Replace, path: str) -> nn.Module:
        return Replace(self.start)

    def group(self, parts: parts.Parts, path: str) -> nn.Module:
        return nn.ModuleDict(self.make(parts, f"{path}."))

    def _first(self, layer: nn.Module, part: Any) -> nn.Module:
        """Set the weights of a layer that starts with zeros."""
        for parameter in layer.parameters() if self.is_zero(part) else ():
            nn.init.zeros_(parameter)
        return layer
