"""Efficient channel attention."""

import math
from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_kernel, check_number
from foveate.ops import Array, Bound, Ops
from foveate.parts import ChannelConv, Gate, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class ECA(Mechanism):
    """y = x * sigmoid(conv over channels of mean_hw(x)), k weights in all; (N, C, H, W) -> (N, C, H, W).

    `kernel_size=None` computes the paper's adaptive size; as in its code (figure 3), an even size is rounded up. The
    released networks set k for each stage instead: 3, 5, 5, 7 for ResNet-50.
    """

    kernel_size: int | None = None
    gamma: float = 2
    beta: float = 1

    name: ClassVar[str] = "eca"
    paper: ClassVar[str] = (
        "Wang et al., ECA-Net: Efficient Channel Attention, CVPR 2020, arXiv:1910.03151, equations 9 and 12"
    )

    def __post_init__(self):
        if self.kernel_size is not None:
            check_kernel(self.kernel_size)
        check_number("gamma", self.gamma, above=0)
        check_number("beta", self.beta)

    def kernel(self, channels: int) -> int:
        """Return the kernel size for that many channels."""
        if self.kernel_size is not None:
            return self.kernel_size
        size = int(abs((math.log2(channels) + self.beta) / self.gamma))
        return size if size % 2 else size + 1

    def parts(self, channels: int) -> Parts:
        return {"conv": ChannelConv(self.kernel(channels), last=True), "gate": Gate("channel")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        v = F.mean(x, F.hw)
        return p.gate(x, F.from_sequence(p.conv(F.to_sequence(v)), v))
