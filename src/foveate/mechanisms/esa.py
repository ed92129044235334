"""Enhanced spatial attention (ESA) of super-resolution networks."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_least, check_reduction, check_smallest
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class ESA(Mechanism):
    """y = x * sigmoid(W4 (resize(coarse(z)) + Wf z)), z = W1 x of C / reduction channels; (N, C, H, W) -> (N, C, H, W).

    `coarse` is a convolution of stride 2, a maximum of 7 x 7 positions with stride 3, and more convolutions. `form`
    says which: "rfanet" has three and ReLUs, "rlfn" one (there z has `hidden=16` channels), "bsrn" three separable ones
    and GELUs, "rlcsr" three with SiLUs, each added to its input. The smallest map is 15 x 15.
    """

    reduction: float = 4
    hidden: int | None = None
    form: Literal["rfanet", "rlfn", "bsrn", "rlcsr"] = "rfanet"

    name: ClassVar[str] = "esa"
    paper: ClassVar[str] = (
        "Liu et al., Residual Feature Aggregation Network for Image Super-Resolution, CVPR 2020; Kong et al., Residual "
        "Local Feature Network for Efficient Super-Resolution, CVPR Workshops 2022, arXiv:2205.07514"
    )

    def __post_init__(self):
        check_reduction(self.reduction)
        if self.hidden is not None:
            check_least("hidden", self.hidden, 1)
        check_choice("form", self.form, ("rfanet", "rlfn", "bsrn", "rlcsr"))

    def parts(self, channels: int) -> Parts:
        hidden = self.hidden or hidden_units(channels, self.reduction)
        more = {} if self.form == "rlfn" else {"first": self._conv(hidden), "second": self._conv(hidden)}
        return {
            "reduce": Conv(channels, hidden),
            "skip": Conv(hidden, hidden),
            "halve": self._conv(hidden, stride=2),
            **more,
            "last": self._conv(hidden),
            "expand": Conv(hidden, channels, last=True),
            "gate": Gate("full"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        check_smallest(self.name, F.size(x, F.h), F.size(x, F.w), 15, "pass maps of an earlier stage")
        z = p.reduce(x)
        coarse = F.pool(self._apply(p.halve, z), "max", 7, 3)
        if self.form != "rlfn":
            activate = {"rfanet": F.relu, "bsrn": F.gelu, "rlcsr": F.silu}[self.form]
            for conv in (p.first, p.second):
                coarse = self._add(coarse, activate(self._apply(conv, coarse)))
        coarse = self._add(coarse, self._apply(p.last, coarse))
        return p.gate(x, p.expand(F.resize(coarse, x, "bilinear") + p.skip(z)))

    def _conv(self, hidden: int, stride: int = 1) -> Conv | Parts:
        same = "same" if stride == 1 else "valid"
        if self.form != "bsrn":
            return Conv(hidden, hidden, 3, stride=stride, padding=same)
        depth = Conv(hidden, hidden, 3, groups=hidden, stride=stride, padding=same)
        return {"point": Conv(hidden, hidden, bias=False), "depth": depth}

    def _apply(self, conv: Bound[Array], x: Array) -> Array:
        return conv.depth(conv.point(x)) if self.form == "bsrn" else conv(x)

    def _add(self, x: Array, y: Array) -> Array:
        return x + y if self.form == "rlcsr" else y
