"""Triplet attention: three gates, each over two of the axes channel, row and column; their mean."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag, check_kernel
from foveate.ops import Array, Axes, Bound, Ops
from foveate.parts import Conv, Gate, GateKind, Norm, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class TripletAttention(Mechanism):
    """y = mean over axes a of x * sigmoid(norm(conv([max_a(x), mean_a(x)]))); (N, C, H, W) -> (N, C, H, W).

    The branch `cw` pools over the rows, so that its convolution sees channels and columns; `hc` pools over the columns
    and `hw` over the channels. `spatial=False` leaves out `hw`. The norm follows the released code.
    """

    kernel_size: int = 7
    spatial: bool = True

    name: ClassVar[str] = "triplet"
    paper: ClassVar[str] = (
        "Misra et al., Rotate to Attend: Convolutional Triplet Attention Module, WACV 2021, arXiv:2010.03045, "
        "equations 2 and 3"
    )

    def __post_init__(self):
        check_kernel(self.kernel_size)
        check_flag("spatial", self.spatial)

    def parts(self, channels: int) -> Parts:
        kinds: dict[str, GateKind] = {"cw": "column", "hc": "row", **({"hw": "spatial"} if self.spatial else {})}
        conv, norm = Conv(2, 1, self.kernel_size, bias=False), Norm(1, momentum=0.01, last=True)
        return {name: {"conv": conv, "norm": norm, "gate": Gate(kind)} for name, kind in kinds.items()}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        ys = [self._branch(F, p.cw, x, F.h), self._branch(F, p.hc, x, F.w)]
        ys += [self._branch(F, p.hw, x, F.c)] if self.spatial else []
        return F.average(ys)

    def _branch(self, F: Ops[Array], p: Bound[Array], x: Array, axis: Axes) -> Array:
        """Scale x by a gate that is alike along the axis."""
        pooled = F.swap(F.concat([F.max(x, axis), F.mean(x, axis)], axis), F.c, axis)
        return p.gate(x, F.swap(p.norm(p.conv(pooled)), F.c, axis))
