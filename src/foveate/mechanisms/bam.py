"""BAM: the bottleneck attention module."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_least, check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class BAM(Mechanism):
    """y = x * (1 + sigmoid(Mc(x) * Ms(x))): a channel and a spatial branch in one gate; (N, C, H, W) -> (N, C, H, W).

    `combine="sum"` is the paper's equation 2, Mc(x) + Ms(x); the released code and its weights have the product. The
    released code averages square maps only. Here the mean is over the whole map. In training, the norm of the channel
    branch has one value per sample, so that a batch needs two.
    """

    reduction: float = 16
    dilation: int = 4
    combine: Literal["product", "sum"] = "product"

    name: ClassVar[str] = "bam"
    paper: ClassVar[str] = (
        "Park et al., BAM: Bottleneck Attention Module, BMVC 2018, arXiv:1807.06514, equations 1 to 4"
    )

    def __post_init__(self):
        check_reduction(self.reduction)
        check_least("dilation", self.dilation, 1)
        check_choice("combine", self.combine, ("product", "sum"))

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction)
        # where both factors were 0, neither would learn
        last = Conv(hidden, 1, last=self.combine == "sum")
        return {
            "reduce": Conv(channels, hidden),
            "norm": Norm(hidden),
            "expand": Conv(hidden, channels, last=True),
            "squeeze": Conv(channels, hidden),
            "norm0": Norm(hidden),
            "conv1": Conv(hidden, hidden, 3, dilation=self.dilation),
            "norm1": Norm(hidden),
            "conv2": Conv(hidden, hidden, 3, dilation=self.dilation),
            "norm2": Norm(hidden),
            "last": last,
            "gate": Gate("full", offset=1.0),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        channel = p.expand(F.relu(p.norm(p.reduce(F.mean(x, F.hw)))))
        z = F.relu(p.norm0(p.squeeze(x)))
        z = F.relu(p.norm1(p.conv1(z)))
        spatial = p.last(F.relu(p.norm2(p.conv2(z))))
        return p.gate(x, channel * spatial if self.combine == "product" else channel + spatial)
