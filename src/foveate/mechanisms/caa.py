"""Context anchor attention (CAA) of PKINet."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag, check_kernel
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class CAA(Mechanism):
    """y = x * sigmoid(P2(column(row(P1(mean of 7 x 7 positions))))); (N, C, H, W) -> (N, C, H, W).

    Row and column are depthwise strips. P1 and P2 are 1x1 convolutions, each with a batch norm and a SiLU, as the
    released class does by default. The released networks leave both out, `norm=False`, and read the gate from another
    map than the one that it scales.
    """

    row_kernel: int = 11
    column_kernel: int = 11
    norm: bool = True

    name: ClassVar[str] = "caa"
    paper: ClassVar[str] = (
        "Cai et al., Poly Kernel Inception Network for Remote Sensing Detection, CVPR 2024, arXiv:2403.06258, "
        "equations 5 to 7"
    )

    def __post_init__(self):
        check_kernel(self.row_kernel)
        check_kernel(self.column_kernel)
        check_flag("norm", self.norm)

    def parts(self, channels: int) -> Parts:
        def point(name: str, last: bool = False) -> Parts:
            if not self.norm:
                return {name: Conv(channels, channels, last=last)}
            norm = Norm(channels, momentum=0.03, eps=1e-3, last=last)
            return {name: Conv(channels, channels, bias=False), f"{name}_norm": norm}

        return {
            **point("first"),
            "row": Conv(channels, channels, (1, self.row_kernel), groups=channels),
            "column": Conv(channels, channels, (self.column_kernel, 1), groups=channels),
            **point("second", last=True),
            "gate": Gate("full"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        z = p.first(F.pool(x, "mean", 7, padding=3))
        z = F.silu(p.first_norm(z)) if self.norm else z
        z = p.second(p.column(p.row(z)))
        return p.gate(x, F.silu(p.second_norm(z)) if self.norm else z)
