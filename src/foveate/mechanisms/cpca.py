"""Channel prior convolutional attention (CPCA)."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_reduction
from foveate.mechanisms.msca import at_scales, scales
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class CPCA(Mechanism):
    """y = P(v * P(s(v))), v = u * (sigmoid(M mean(u)) + sigmoid(M max(u))), u = gelu(P(x)); keeps (N, C, H, W).

    M is a shared MLP of 1x1 convolutions, s the depthwise convolutions of MSCA. In the released code, P is one and the
    same 1x1 convolution, used three times, and no sigmoid follows s.
    """

    reduction: float = 4

    name: ClassVar[str] = "cpca"
    paper: ClassVar[str] = (
        "Huang et al., Channel prior convolutional attention for medical image segmentation, Computers in Biology and "
        "Medicine 2024, arXiv:2306.05196, equations 1 to 5"
    )

    def __post_init__(self):
        check_reduction(self.reduction)

    @property
    def no_identity(self) -> str:
        return "its last convolution is also its first, so weights of 0 have no gradient"

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction)
        return {
            "mix": Conv(channels, channels),
            "reduce": Conv(channels, hidden),
            "expand": Conv(hidden, channels),
            "channel": Gate("channel", activation="linear"),
            **scales(channels),
            "full": Gate("full", activation="linear"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        u = F.gelu(p.mix(x))
        mean, most = (p.expand(F.relu(p.reduce(pool(u, F.hw)))) for pool in (F.mean, F.max))
        v = p.channel(u, F.sigmoid(mean) + F.sigmoid(most))
        return p.mix(p.full(v, p.mix(at_scales(p, v))))
