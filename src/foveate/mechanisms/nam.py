"""Normalisation-based channel attention (NAM): a batch norm weighs the channels by its own scales."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_number
from foveate.ops import Array, Bound, Ops
from foveate.parts import Gate, Norm, Parts
from foveate.spec import Mechanism

LEAST = 1e-30  # of the sum of the scales


@dataclass(frozen=True)
class NAM(Mechanism):
    """y = x * sigmoid(w z), with z = batch norm of x, gamma its scales, w = |gamma| / sum |gamma|.

    (N, C, H, W) -> (N, C, H, W). As in the released code, no gradient flows through w: gamma learns from z alone. Where
    all scales are 0, w is 0; the released code returns NaN there.
    """

    momentum: float = 0.1
    eps: float = 1e-5

    name: ClassVar[str] = "nam"
    paper: ClassVar[str] = (
        "Liu et al., NAM: Normalization-based Attention Module, NeurIPS 2021 Workshop, arXiv:2111.12419, equation 2"
    )

    def __post_init__(self):
        check_number("momentum", self.momentum, above=0)
        check_number("eps", self.eps, above=0)

    @property
    def no_identity(self) -> str:
        return "its gate is the same everywhere only where the scales of its norm are 0, and they could not learn"

    def parts(self, channels: int) -> Parts:
        return {"norm": Norm(channels, momentum=self.momentum, eps=self.eps), "gate": Gate("full")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        z, gamma = p.norm(x), F.weight(p.norm)
        size = F.maximum(gamma, -gamma)
        return p.gate(x, z * (size / (F.sum(size, F.c) + LEAST)))
