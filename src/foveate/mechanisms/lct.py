"""LCT: the linear context transform."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_groups, check_least
from foveate.ops import Array, Bound, Ops
from foveate.parts import Gate, Norm, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class LCT(Mechanism):
    """y = x * sigmoid(w * norm(mean_hw(x)) + b): means normalised in groups of channels; (N, C, H, W) -> (N, C, H, W).

    Each channel has one weight w and one bias b, and no channel reads another except through the statistics of its
    group. The authors released no code. As in the code that people use, w begins at 1 and b at 0.
    """

    groups: int = 8

    name: ClassVar[str] = "lct"
    paper: ClassVar[str] = "Ruan et al., Linear Context Transform Block, AAAI 2020, arXiv:1909.03834"

    def __post_init__(self):
        check_least("groups", self.groups, 1)

    def parts(self, channels: int) -> Parts:
        check_groups("groups", self.groups, channels)
        return {"norm": Norm(channels, kind="group", groups=self.groups, last=True), "gate": Gate("channel")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, p.norm(F.mean(x, F.hw)))
