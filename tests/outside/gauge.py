"""Row gauge: one gate per channel and row, from the mean of the row."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag, check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class RowGauge(Mechanism):
    """y = x * sigmoid(W2 relu(norm(W1 mean_w(x)))), one gate per channel and row; (N, C, H, W) -> (N, C, H, W)."""

    reduction: float = 16
    bias: bool = True

    name: ClassVar[str] = "gauge"
    paper: ClassVar[str] = "Nobody et al., Gauges, https://example.org/gauge.pdf"

    def __post_init__(self):
        check_reduction(self.reduction)
        check_flag("bias", self.bias)

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction)
        return {
            "reduce": Conv(channels, hidden, bias=self.bias),
            "norm": Norm(hidden),
            "expand": Conv(hidden, channels, bias=self.bias, last=True),
            "gate": Gate("row"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, p.expand(F.relu(p.norm(p.reduce(F.mean(x, F.w))))))
