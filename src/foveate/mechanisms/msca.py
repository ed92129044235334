"""Multi-scale convolutional attention (MSCA) of SegNeXt."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag
from foveate.mechanisms.large_kernel import linear_gate
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Parts
from foveate.spec import Mechanism

SCALES = (7, 11, 21)


@dataclass(frozen=True)
class MSCA(Mechanism):
    """y = x * W (a + sum over k of column_k(row_k(a))), a = conv5x5(x), all depthwise; (N, C, H, W) -> (N, C, H, W).

    The scales k are 7, 11 and 21. No sigmoid follows, so that the output grows with the square of x: put a norm in
    front. `block=True` adds what is around it in the released networks, x + W2 MSCA(gelu(W1 x)).
    """

    block: bool = False

    name: ClassVar[str] = "msca"
    paper: ClassVar[str] = (
        "Guo et al., SegNeXt: Rethinking Convolutional Attention Design for Semantic Segmentation, NeurIPS 2022, "
        "arXiv:2209.08575, equations 1 and 2"
    )

    def __post_init__(self):
        check_flag("block", self.block)

    def parts(self, channels: int) -> Parts:
        return linear_gate(channels, {**scales(channels), "mix": Conv(channels, channels, last=True)}, self.block)

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        if not self.block:
            return p.replace(x, p.gate(x, p.mix(at_scales(p, x))))
        z = F.gelu(p.enter(x))
        return x + p.leave(p.gate(z, p.mix(at_scales(p, z))))


def scales(channels: int) -> Parts:
    """Return the depthwise convolutions: 5 x 5, and for each scale a row and a column."""
    sizes = {"local": (5, 5)} | {f"row{k}": (1, k) for k in SCALES} | {f"column{k}": (k, 1) for k in SCALES}
    return {name: Conv(channels, channels, size, groups=channels) for name, size in sizes.items()}


def at_scales(p: Bound[Array], x: Array) -> Array:
    """Return the sum of the convolutions of all scales."""
    a = p.local(x)
    return a + p.column7(p.row7(a)) + p.column11(p.row11(a)) + p.column21(p.row21(a))
