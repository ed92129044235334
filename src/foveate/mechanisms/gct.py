"""Gated channel transformation: channels compete or cooperate by their norms, with three numbers per channel."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_flag, check_number
from foveate.ops import Array, Bound, Ops
from foveate.parts import Gate, Parts, Scale
from foveate.spec import Mechanism


@dataclass(frozen=True)
class GCT(Mechanism):
    """y = x * (1 + tanh(gamma e / sqrt(mean_c(e^2)) + beta)) with e = alpha |x|_hw; (N, C, H, W) -> (N, C, H, W).

    With `mode="l1"` the norms are sums of absolute values; `after_relu` leaves out the absolute value for maps that are
    never negative. The paper divides by |e|_c / sqrt(C), which is the same apart from `eps`.
    """

    mode: Literal["l2", "l1"] = "l2"
    after_relu: bool = False
    eps: float = 1e-5

    name: ClassVar[str] = "gct"
    paper: ClassVar[str] = (
        "Yang et al., Gated Channel Transformation for Visual Recognition, CVPR 2020, arXiv:1909.11519, "
        "equations 2 to 5"
    )

    def __post_init__(self):
        check_choice("mode", self.mode, ("l2", "l1"))
        check_flag("after_relu", self.after_relu)
        check_number("eps", self.eps, above=0)

    def parts(self, channels: int) -> Parts:
        gamma = Scale(channels, bias=True, first=0.0, last=True)
        return {"alpha": Scale(channels), "gamma": gamma, "gate": Gate("channel", activation="tanh", offset=1.0)}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        if self.mode == "l2":
            e = p.alpha(F.sqrt(F.sum(x**2, F.hw), self.eps))
            norm = F.sqrt(F.mean(e**2, F.c), self.eps)
        else:
            e = p.alpha(F.sum(x if self.after_relu else F.relu(x) + F.relu(-x), F.hw))
            norm = F.mean(F.relu(e) + F.relu(-e), F.c) + self.eps
        return p.gate(x, p.gamma(e / norm))
