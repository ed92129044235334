"""Self-modulation feature aggregation (SMFA) of SMFANet."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_smallest
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts, Replace, Scale
from foveate.spec import Mechanism

SHRINK = 8  # the coarse map has one value for so many rows and columns


@dataclass(frozen=True)
class SMFA(Mechanism):
    """y = W (v * resize(gelu(W' (alpha s + belt variance(v)))) + detail(u)), [u, v] = W0 x; keeps (N, C, H, W).

    s is a 3x3 convolution of the maxima of cells of about 8 x 8 positions, `detail` a 3x3 convolution and an MLP. The
    released block adds it to its input: x + SMFA(x / |x|), with the norm over the channels. The smallest map is 8 x 8.
    """

    name: ClassVar[str] = "smfa"
    paper: ClassVar[str] = (
        "Zheng et al., SMFANet: A Lightweight Self-Modulation Feature Aggregation Network for Efficient Image "
        "Super-Resolution, ECCV 2024, https://www.ecva.net/papers/eccv_2024/papers_ECCV/papers/06713.pdf"
    )

    def parts(self, channels: int) -> Parts:
        double = 2 * channels
        return {
            "split": Conv(channels, double),
            "coarse": Conv(channels, channels, 3, groups=channels),
            "alpha": Scale(channels),
            "belt": Scale(channels, first=0.0),
            "mix": Conv(channels, channels),
            "gate": Gate("full", published=True, activation="linear"),
            "local": Conv(channels, double, 3, groups=channels),
            "hidden": Conv(double, double),
            "shrink": Conv(double, channels),
            "join": Conv(channels, channels, last=True),
            "replace": Replace(channels, channels),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        height, width = F.size(x, F.h), F.size(x, F.w)
        check_smallest(self.name, height, width, SHRINK, "pass maps of an earlier stage")
        u, v = F.split(p.split(x), [F.size(x, F.c)] * 2, F.c)
        s = p.coarse(F.adaptive_pool(v, "max", (height // SHRINK, width // SHRINK)))
        gate = F.gelu(p.mix(p.alpha(s) + p.belt(F.variance(v, F.hw, unbiased=True))))
        detail = p.shrink(F.gelu(p.hidden(p.local(u))))
        return p.replace(x, p.join(p.gate(v, F.resize(gate, x, "nearest")) + detail))
