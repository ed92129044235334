"""Squeeze-and-Excitation."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag, check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class SE(Mechanism):
    """y = x * sigmoid(W2 relu(W1 mean_hw(x))), one gate per channel; (N, C, H, W) -> (N, C, H, W).

    The paper's equations 2 to 4 show no biases; the released Caffe networks have them, so `bias=True` is the default.
    """

    reduction: float = 16
    bias: bool = True

    name: ClassVar[str] = "se"
    paper: ClassVar[str] = "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507, equations 2 to 4"

    def __post_init__(self):
        check_reduction(self.reduction)
        check_flag("bias", self.bias)

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction)
        squeeze, expand = Conv(channels, hidden, bias=self.bias), Conv(hidden, channels, bias=self.bias, last=True)
        return {"reduce": squeeze, "expand": expand, "gate": Gate("channel")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, p.expand(F.relu(p.reduce(F.mean(x, F.hw)))))
