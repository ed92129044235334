"""Criss-cross attention: every position attends to those in its row and its column."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_least, check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Parts, Scale
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class CrissCrossAttention(Mechanism):
    """y = x + gamma * sum_i softmax_i(q k_i) v_i over the H + W - 1 positions i in the own row and column.

    (N, C, H, W) -> (N, C, H, W). The logits have no scale, and gamma is 0 at first, as in the released code. The
    network of the paper runs the module twice with the same weights, so that every position sees all others:
    `recurrence=2`.
    """

    reduction: float = 8
    recurrence: int = 1

    name: ClassVar[str] = "criss_cross"
    paper: ClassVar[str] = (
        "Huang et al., CCNet: Criss-Cross Attention for Semantic Segmentation, ICCV 2019, arXiv:1811.11721, "
        "equations 1 and 2"
    )
    planar: ClassVar[bool] = True

    def __post_init__(self):
        check_reduction(self.reduction)
        check_least("recurrence", self.recurrence, 1)

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction)
        return {
            "query": Conv(channels, hidden),
            "key": Conv(channels, hidden),
            "value": Conv(channels, channels),
            "gamma": Scale(first=0.0, last=True),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        for _ in range(self.recurrence):
            x = x + p.gamma(F.criss_cross(p.query(x), p.key(x), p.value(x)))
        return x
