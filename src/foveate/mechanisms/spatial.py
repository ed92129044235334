"""Spatial attention: the second half of CBAM."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag, check_kernel
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class SpatialAttention(Mechanism):
    """y = x * sigmoid(norm(conv([max_c(x), mean_c(x)]))), one gate per position; (N, C, H, W) -> (N, C, H, W).

    The paper's equation 3 lists the mean first and has no norm; the released code puts the maximum first and adds a
    batch norm.
    """

    kernel_size: int = 7
    norm: bool = True
    bias: bool = False

    name: ClassVar[str] = "spatial"
    paper: ClassVar[str] = (
        "Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv:1807.06521, equation 3"
    )

    def __post_init__(self):
        check_kernel(self.kernel_size)
        check_flag("norm", self.norm)
        check_flag("bias", self.bias)

    def parts(self, channels: int) -> Parts:
        norm = {"norm": Norm(1, momentum=0.01, last=True)} if self.norm else {}
        return {"conv": Conv(2, 1, self.kernel_size, self.bias, last=not self.norm), **norm, "gate": Gate("spatial")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, self.logits(F, p, x))

    def logits(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        """Return the gate before its sigmoid, (N, 1, H, W)."""
        logits = p.conv(F.concat([F.max(x, F.c), F.mean(x, F.c)], F.c))
        return p.norm(logits) if self.norm else logits
