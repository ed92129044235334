"""Coordinate attention."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_flag, check_least, check_number, check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class CoordinateAttention(Mechanism):
    """y = x * a_w * a_h: one gate per row and one per column, from one shared squeeze; (N, C, H, W) -> (N, C, H, W).

    The paper leaves the non-linearity open; the released code uses hard-swish. The batch norm computes its statistics
    over all H + W positions.
    """

    reduction: float = 32
    min_hidden: int = 8
    bias: bool = True
    activation: Literal["hardswish", "relu"] = "hardswish"
    eps: float = 1e-5

    name: ClassVar[str] = "coordinate"
    paper: ClassVar[str] = (
        "Hou et al., Coordinate Attention for Efficient Mobile Network Design, CVPR 2021, arXiv:2103.02907, "
        "equations 4 to 9"
    )

    def __post_init__(self):
        check_reduction(self.reduction)
        check_flag("bias", self.bias)
        check_number("eps", self.eps, above=0)
        check_least("min_hidden", self.min_hidden, 0)
        check_choice("activation", self.activation, ("hardswish", "relu"))

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction, self.min_hidden)
        return {
            "squeeze": Conv(channels, hidden, bias=self.bias),
            "norm": Norm(hidden, eps=self.eps),
            "row": Conv(hidden, channels, bias=self.bias, last=True),
            "column": Conv(hidden, channels, bias=self.bias, last=True),
            "column_gate": Gate("column"),
            "row_gate": Gate("row"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        activate = F.hardswish if self.activation == "hardswish" else F.relu
        rows, columns = F.mean(x, F.w), F.swap(F.mean(x, F.h), F.h, F.w)
        joined = activate(p.norm(p.squeeze(F.concat([rows, columns], F.h))))
        rows, columns = F.split(joined, [F.size(x, F.h), F.size(x, F.w)], F.h)
        return p.row_gate(p.column_gate(x, p.column(F.swap(columns, F.h, F.w))), p.row(rows))
