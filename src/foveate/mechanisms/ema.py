"""EMA: efficient multi-scale attention."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_groups, check_least
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class EMA(Mechanism):
    """y = x * sigmoid(w1 x2 + w2 x1), one gate per position and group of channels; (N, C, H, W) -> (N, C, H, W).

    All groups share the weights. x1 is the normalised group after gates of its rows and columns, x2 its 3x3
    convolution. w1 and w2 are the softmax over channels of the means of x1 and x2. After the norm the mean of x1 is the
    norm's bias, so that w1 does not depend on x: so it is in the released code too. `factor` is the number of groups.
    """

    factor: int = 32

    name: ClassVar[str] = "ema"
    paper: ClassVar[str] = (
        "Ouyang et al., Efficient Multi-Scale Attention Module with Cross-Spatial Learning, ICASSP 2023, "
        "arXiv:2305.13563, section 3"
    )

    def __post_init__(self):
        check_least("factor", self.factor, 1)

    def parts(self, channels: int) -> Parts:
        check_groups("factor", self.factor, channels)
        group = channels // self.factor
        return {
            "profile": Conv(group, group),
            "norm": Norm(group, kind="instance", last=True),
            "conv": Conv(group, group, 3, last=True),
            "gate": Gate("spatial"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        x = F.group(x, self.factor)
        profiles = F.concat([F.mean(x, F.w), F.swap(F.mean(x, F.h), F.h, F.w)], F.h)
        rows, columns = F.split(F.sigmoid(p.profile(profiles)), [F.size(x, F.h), F.size(x, F.w)], F.h)
        x1 = p.norm(x * rows * F.swap(columns, F.h, F.w))
        x2 = p.conv(x)
        w1, w2 = (F.transpose(F.softmax(F.mean(each, F.hw), F.c)) for each in (x1, x2))
        return F.ungroup(p.gate(x, F.matmul(w1, x2) + F.matmul(w2, x1)), self.factor)
