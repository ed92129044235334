"""The parts of `foveate.parts` as torch modules."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate import parts
from foveate.kernels.torch_modules import computes
from foveate.parts import Activation, GateKind, Start


@computes
class Gate(nn.Module):
    """x * scale * (offset + activation(logits)); scale 1 is the published gate, another one the identity start's."""

    def __init__(self, kind: GateKind, scale: float = 1.0, activation: Activation = "sigmoid", offset: float = 0.0):
        super().__init__()
        self.kind, self.scale, self.offset, self.activation = kind, scale, offset, activation

    def gate(self, logits: Tensor) -> Tensor:
        """Return the gate: (N, C, 1, 1), (N, 1, H, W), (N, C, H, 1), (N, C, 1, W) or (N, C, H, W), by `kind`."""
        if self.activation == "sigmoid":  # by conditions, which TorchScript compiles
            gate = torch.sigmoid(logits)
        elif self.activation == "hard_sigmoid":
            # the gradient of torch's own is of single precision
            double = logits.dtype == torch.float64
            gate = functional.relu6(logits + 3) / 6 if double else functional.hardsigmoid(logits)
        else:
            gate = torch.tanh(logits) if self.activation == "tanh" else logits
        gate = self.offset + gate if self.offset else gate
        return gate if self.scale == 1 else self.scale * gate

    def forward(self, x: Tensor, logits: Tensor) -> Tensor:
        """Scale x (N, C, H, W) by the gate of logits that broadcast against it."""
        gate = self.gate(logits)
        if torch.jit.is_scripting() or self.kind != "full":  # pyright: ignore[reportPrivateImportUsage]
            return x * gate
        return gate.mul_(x) if gate is not logits and _may_overwrite(gate, x) else x * gate

    def extra_repr(self) -> str:
        """Describe the module in its repr."""
        activation = "" if self.activation == "sigmoid" else f", {self.activation}"
        return f"{self.kind}, scale={self.scale:g}{activation}{f', offset={self.offset:g}' if self.offset else ''}"


def _may_overwrite(gate: Tensor, x: Tensor) -> bool:
    """Return whether the product with x fits into the memory of the gate, and no gradient will need the gate."""
    if torch.is_grad_enabled() or torch._C._is_tracing():
        return False
    return gate.shape == x.shape and gate.stride() == x.stride() and gate.dtype is x.dtype


@computes
class Scale(nn.Module):
    """Multiply x (N, C, H, W) by one learnt number or one for each channel, and add another if there is a bias."""

    def __init__(self, part: parts.Scale, **factory: Any):
        super().__init__()
        self.weight = nn.Parameter(torch.full((part.size,), part.first, **factory))
        self.bias = nn.Parameter(torch.full((part.size,), part.first_bias, **factory)) if part.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return x * weight + bias."""
        y = x * self.weight.view(-1, 1, 1)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class Constant(nn.Module):
    """Multiply x (N, C, H, W) by a constant (C, H, W)."""

    constant: Tensor

    def __init__(self, values: Any, **factory: Any):
        super().__init__()
        self.register_buffer("constant", torch.tensor(values, **factory))

    def forward(self, x: Tensor) -> Tensor:
        """Return x * constant."""
        return x * self.constant


class LayerNorm(nn.LayerNorm):
    """Normalise the channels of x (N, C, H, W) at each position."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised map."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class GroupNorm(nn.GroupNorm):
    """Normalise groups of channels, also of a single value, whose result is the bias."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised map. For single values torch's own refuses a batch of one, and rounds badly."""
        x = input - input if input[0].numel() == self.num_groups else input
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


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
        layer = nn.Conv2d(
            part.inputs,
            part.outputs,
            part.size,
            padding=part.pads,
            bias=part.bias,
            groups=part.groups,
            dilation=part.dilation,
            stride=part.stride,
            **self.factory,
        )
        return self._first(layer, part)

    def channel_conv(self, part: parts.ChannelConv, path: str) -> nn.Module:
        return self._first(nn.Conv1d(1, 1, part.kernel, padding=part.kernel // 2, bias=part.bias, **self.factory), part)

    def norm(self, part: parts.Norm, path: str) -> nn.Module:
        if part.kind == "batch":
            layer = nn.BatchNorm2d(part.channels, eps=part.eps, momentum=part.momentum, **self.factory)
        elif part.kind == "layer":
            layer = LayerNorm(part.channels, part.eps, **self.factory)
        else:
            groups = part.channels if part.kind == "instance" else part.groups
            layer = GroupNorm(groups, part.channels, part.eps, **self.factory)
        return self._first(layer, part)

    def scale(self, part: parts.Scale, path: str) -> nn.Module:
        return self._first(Scale(part, **self.factory), part)

    def constant(self, part: parts.Constant, path: str) -> nn.Module:
        return Constant(part.values, **self.factory)

    def gate(self, part: parts.Gate, path: str) -> nn.Module:
        return Gate(part.kind, part.scale(self.start), part.activation, part.offset)

    def replace(self, part: parts.Replace, path: str) -> nn.Module:
        return Replace(self.start)

    def group(self, parts: parts.Parts, path: str) -> nn.Module:
        return nn.ModuleDict(self.make(parts, f"{path}."))

    def _first(self, layer: nn.Module, part: Any) -> nn.Module:
        """Set the weights of a layer that starts with zeros."""
        for parameter in layer.parameters() if self.is_zero(part) else ():
            nn.init.zeros_(parameter)
        return layer
