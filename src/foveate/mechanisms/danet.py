"""DANet's position and channel attention."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Parts, Scale
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class DANet(Mechanism):
    """y = x + gamma * attention of positions, or of channels, to each other; (N, C, H, W) -> (N, C, H, W).

    "positions" is softmax(q k^T) v without a scale. "channels" is softmax(-X X^T) X without weights: the more similar a
    channel, the less it counts. (The released code subtracts X X^T from its greatest value, which is the same.) gamma
    is one number, which begins at 0. DANet adds the two modules' outputs, each behind its own convolution.
    """

    pairs: Literal["positions", "channels"] = "positions"
    reduction: float = 8

    name: ClassVar[str] = "danet"
    paper: ClassVar[str] = (
        "Fu et al., Dual Attention Network for Scene Segmentation, CVPR 2019, arXiv:1809.02983, equations 1 to 4"
    )

    def __post_init__(self):
        check_choice("pairs", self.pairs, ("positions", "channels"))
        check_reduction(self.reduction)

    def parts(self, channels: int) -> Parts:
        gamma = {"gamma": Scale(first=0.0, last=True)}
        if self.pairs == "channels":
            return gamma
        hidden = hidden_units(channels, self.reduction)
        return {
            "query": Conv(channels, hidden),
            "key": Conv(channels, hidden),
            "value": Conv(channels, channels),
            **gamma,
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        if self.pairs == "positions":
            return x + p.gamma(F.attend(p.query(x), p.key(x), p.value(x), 1.0))
        return x + p.gamma(F.attend_channels(x, x, x, -1.0))
