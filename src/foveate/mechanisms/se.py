"""Squeeze-and-Excitation."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag, check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class SE(Mechanism):
    """y = x * sigmoid(W2 relu(W1 mean_hw(x))), one gate per channel; (N, C, H, W) -> (N, C, H, W).

    The paper's equations 2 to 4 show no biases; the released Caffe networks have them, so `bias=True` is the default.
    `norm` puts a batch norm after each of the two layers, as MiniFASNet does.
    """

    reduction: float = 16
    bias: bool = True
    norm: bool = False

    name: ClassVar[str] = "se"
    paper: ClassVar[str] = "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, arXiv:1709.01507, equations 2 to 4"

    def __post_init__(self):
        check_reduction(self.reduction)
        check_flag("bias", self.bias)
        check_flag("norm", self.norm)

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction)
        return {
            "reduce": Conv(channels, hidden, bias=self.bias),
            **({"reduce_norm": Norm(hidden)} if self.norm else {}),
            "expand": Conv(hidden, channels, bias=self.bias, last=not self.norm),
            **({"expand_norm": Norm(channels, last=True)} if self.norm else {}),
            "gate": Gate("channel"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        hidden = p.reduce(F.mean(x, F.hw))
        logits = p.expand(F.relu(p.reduce_norm(hidden) if self.norm else hidden))
        return p.gate(x, p.expand_norm(logits) if self.norm else logits)
