"""A mechanism outside the package, as a user would write it."""

from dataclasses import dataclass

from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class Pixel(Mechanism):
    """y = x * sigmoid(W x), one gate per position; (N, C, H, W) -> (N, C, H, W)."""

    bias: bool = True

    def parts(self, channels: int) -> Parts:
        return {"conv": Conv(channels, 1, bias=self.bias, last=True), "gate": Gate("spatial")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, p.conv(x))


@dataclass(frozen=True)
class Named(Mechanism):
    """y = x * sigmoid(W x), whose layer has a name of one's choice."""

    part: str = "conv"

    def parts(self, channels: int) -> Parts:
        return {self.part: Conv(channels, 1), "gate": Gate("spatial")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, getattr(p, self.part)(x))
