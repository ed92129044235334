"""CBAM: channel attention, then spatial attention."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_flag
from foveate.mechanisms.channel import ChannelAttention, Pool
from foveate.mechanisms.spatial import SpatialAttention
from foveate.ops import Array, Bound, Ops
from foveate.parts import Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class CBAM(Mechanism):
    """y = Ms(x') * x' with x' = Mc(x) * x; (N, C, H, W) -> (N, C, H, W).

    `order` is the arrangement of the two gates (section 4.1 of the paper); in "parallel" both gates read x. The
    defaults follow the released code: biases in the channel MLP, [max, mean] maps and a batch norm in the spatial gate.
    The paper's equations show none of these.
    """

    reduction: float = 16
    bias: bool = True
    pools: tuple[Pool, ...] = ("avg", "max")
    kernel_size: int = 7
    norm: bool = True
    spatial_bias: bool = False
    order: Literal["channel-spatial", "spatial-channel", "parallel"] = "channel-spatial"

    name: ClassVar[str] = "cbam"
    paper: ClassVar[str] = (
        "Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv:1807.06521, equations 1 to 3"
    )

    def __post_init__(self):
        check_flag("spatial_bias", self.spatial_bias)
        check_choice("order", self.order, ("channel-spatial", "spatial-channel", "parallel"))
        object.__setattr__(self, "pools", self.channel.pools)
        _ = self.spatial

    @property
    def channel(self) -> ChannelAttention:
        """The channel half."""
        return ChannelAttention(self.reduction, self.bias, self.pools)

    @property
    def spatial(self) -> SpatialAttention:
        """The spatial half."""
        return SpatialAttention(self.kernel_size, self.norm, self.spatial_bias)

    def parts(self, channels: int) -> Parts:
        return {"channel": self.channel.parts(channels), "spatial": self.spatial.parts(channels)}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        if self.order == "parallel":
            return p.spatial.gate(self.channel.forward(F, p.channel, x), self.spatial.logits(F, p.spatial, x))
        if self.order == "spatial-channel":
            return F.apply(self.channel, p.channel, F.apply(self.spatial, p.spatial, x))
        return F.apply(self.spatial, p.spatial, F.apply(self.channel, p.channel, x))
