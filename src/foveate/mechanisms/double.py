"""Double attention of A2-Nets."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag, check_least
from foveate.errors import UsageError
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Parts, Replace
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class DoubleAttention(Mechanism):
    """y = W (A softmax_hw(B)^T) softmax_c(V): gather c_n descriptors, then distribute them; (N, C, H, W) in and out.

    A has `c_m` channels, B and V have `c_n`; None is C // 4, as in the paper. The paper adds x: `residual=True`. The
    code that people use leaves that to the caller. `reconstruct=False` leaves out W and returns c_m channels.
    """

    c_m: int | None = None
    c_n: int | None = None
    reconstruct: bool = True
    residual: bool = False

    name: ClassVar[str] = "double"
    paper: ClassVar[str] = (
        "Chen et al., A2-Nets: Double Attention Networks, NeurIPS 2018, arXiv:1810.11579, equations 1 to 5"
    )

    def __post_init__(self):
        for option, count in (("c_m", self.c_m), ("c_n", self.c_n)):
            if count is not None:
                check_least(option, count, 1)
        check_flag("reconstruct", self.reconstruct)
        check_flag("residual", self.residual)

    def parts(self, channels: int) -> Parts:
        c_m, c_n = self.c_m or hidden_units(channels, 4), self.c_n or hidden_units(channels, 4)
        outputs = channels if self.reconstruct else c_m
        if self.residual and outputs != channels:
            raise UsageError(
                expected=f"{channels} output channels, to which x can be added",
                received=f"reconstruct=False with c_m={c_m}",
                do=f"pass reconstruct=True, c_m={channels} or residual=False",
            )
        return {
            "features": Conv(channels, c_m, last=not self.reconstruct),
            "gather": Conv(channels, c_n),
            "distribute": Conv(channels, c_n),
            **({"reconstruct": Conv(c_m, channels, last=True)} if self.reconstruct else {}),
            **({} if self.residual else {"replace": Replace(channels, outputs)}),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        gathered = F.attention_pool(p.features(x), p.gather(x))
        y = F.matmul(gathered, F.softmax(p.distribute(x), F.c))
        y = p.reconstruct(y) if self.reconstruct else y
        return x + y if self.residual else p.replace(x, y)
