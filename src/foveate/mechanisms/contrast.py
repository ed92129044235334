"""Contrast-aware channel attention: SE with the standard deviation beside the mean."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class ContrastAttention(Mechanism):
    """y = x * sigmoid(W2 relu(W1 (std_hw(x) + mean_hw(x)))), one gate per channel; (N, C, H, W) -> (N, C, H, W).

    The standard deviation is that of all positions, without a small number below its root. A constant channel has the
    gradient 0 there, where the released code has NaN.
    """

    reduction: float = 16

    name: ClassVar[str] = "contrast"
    paper: ClassVar[str] = (
        "Hui et al., Lightweight Image Super-Resolution with Information Multi-distillation Network, ACM MM 2019, "
        "arXiv:1909.11856, equation 6"
    )

    def __post_init__(self):
        check_reduction(self.reduction)

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction)
        return {"reduce": Conv(channels, hidden), "expand": Conv(hidden, channels, last=True), "gate": Gate("channel")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        mean = F.mean(x, F.hw)
        contrast = F.sqrt(F.variance(x, F.hw, mean=mean)) + mean
        return p.gate(x, p.expand(F.relu(p.reduce(contrast))))
