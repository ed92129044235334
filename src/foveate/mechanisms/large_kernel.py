"""Large kernel attention (LKA), and its separable form (LSKA)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_flag
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts, Replace
from foveate.spec import Mechanism, published

# By the size that both cover: the kernel near each position, the kernel for those far away, and its dilation.
KERNELS = {7: (3, 3, 2), 11: (3, 5, 2), 23: (5, 7, 3), 35: (5, 11, 3), 41: (5, 13, 3), 53: (5, 17, 3)}


@dataclass(frozen=True)
class LargeKernelAttention(Mechanism):
    """y = x * W far(near(x)), with two depthwise convolutions and no sigmoid; (N, C, H, W) -> (N, C, H, W).

    The second convolution is dilated, so that both cover `kernel_size` positions. `separable=True` is LSKA: a row, then
    a column for each kernel. `block=True` adds what is around it in the released networks, x + W2 LKA(gelu(W1 x)).
    """

    kernel_size: Literal[7, 11, 23, 35, 41, 53] = 23
    separable: bool = False
    block: bool = False

    name: ClassVar[str] = "large_kernel"
    paper: ClassVar[str] = (
        "Guo et al., Visual Attention Network, Computational Visual Media 2023, arXiv:2202.09741, equations 1 and 2; "
        "Lau et al., Large Separable Kernel Attention, Expert Systems with Applications 2024, arXiv:2309.01439"
    )

    def __post_init__(self):
        check_choice("kernel_size", self.kernel_size, tuple(KERNELS))
        check_flag("separable", self.separable)
        check_flag("block", self.block)

    def parts(self, channels: int) -> Parts:
        near, far, dilation = KERNELS[self.kernel_size]
        convs = {
            name + strip: Conv(channels, channels, size, groups=channels, dilation=spread)
            for name, k, spread in (("near", near, 1), ("far", far, dilation))
            for strip, size in ({"_row": (1, k), "_column": (k, 1)} if self.separable else {"": k}).items()
        }
        return linear_gate(channels, {**convs, "mix": Conv(channels, channels, last=True)}, self.block)

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        if not self.block:
            return p.replace(x, p.gate(x, self.logits(p, x)))
        z = F.gelu(p.enter(x))
        return x + p.leave(p.gate(z, self.logits(p, z)))

    def logits(self, p: Bound[Array], x: Array) -> Array:
        """Return the gate of x, (N, C, H, W)."""
        if self.separable:
            return p.mix(p.far_column(p.far_row(p.near_column(p.near_row(x)))))
        return p.mix(p.far(p.near(x)))


def linear_gate(channels: int, convs: Parts, block: bool) -> Parts:
    """Return the parts of a gate without a sigmoid, which replaces x or stands between the two layers of a block."""
    gate = {**convs, "gate": Gate("full", published=True, activation="linear")}
    if not block:
        return {**gate, "replace": Replace(channels, channels)}
    return {"enter": Conv(channels, channels), **published(gate), "leave": Conv(channels, channels, last=True)}
