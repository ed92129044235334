"""A complete block: a convolution, then a CBAM with a residual connection around it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_kernel, check_least
from foveate.mechanisms.cbam import CBAM
from foveate.mechanisms.channel import Pool
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Parts, Replace
from foveate.spec import Mechanism, published


@dataclass(frozen=True)
class ResidualCBAM(Mechanism):
    """y = z + CBAM(z) with z = conv3x3(x); (N, C, H, W) -> (N, out_channels, H, W).

    The block comes from a published listing, not from a paper. The identity start is x + y with a convolution of zeros,
    so it needs out_channels == C.
    """

    out_channels: int | None = None
    reduction: float = 2
    bias: bool = True
    pools: tuple[Pool, ...] = ("avg", "max")
    kernel_size: int = 7
    norm: bool = False
    spatial_bias: bool = True
    order: Literal["channel-spatial", "spatial-channel", "parallel"] = "channel-spatial"
    conv_kernel_size: int = 3

    name: ClassVar[str] = "residual_cbam"
    paper: ClassVar[str] = (
        "Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv:1807.06521; the block is from a "
        "listing"
    )

    def __post_init__(self):
        if self.out_channels is not None:
            check_least("out_channels", self.out_channels, 1)
        check_kernel(self.conv_kernel_size)
        object.__setattr__(self, "pools", self.cbam.pools)

    @property
    def cbam(self) -> CBAM:
        """The attention inside the block."""
        return CBAM(self.reduction, self.bias, self.pools, self.kernel_size, self.norm, self.spatial_bias, self.order)

    def parts(self, channels: int) -> Parts:
        outputs = self.out_channels or channels
        conv = Conv(channels, outputs, self.conv_kernel_size, last=True)
        return {"conv": conv, "cbam": published(self.cbam.parts(outputs)), "replace": Replace(channels, outputs)}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        z = p.conv(x)
        return p.replace(x, z + F.apply(self.cbam, p.cbam, z))
