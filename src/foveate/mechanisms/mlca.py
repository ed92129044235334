"""Mixed local channel attention (MLCA): channel gates for each cell of a coarse grid, mixed with one for the map."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_least, check_number
from foveate.errors import UsageError
from foveate.mechanisms.eca import ECA
from foveate.ops import Array, Bound, Ops
from foveate.parts import ChannelConv, Gate, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class MLCA(Mechanism):
    """y = x * a, with a = (1 - w) sigmoid(conv(mean of the cells)) + w sigmoid(conv(cells)), resized to the map.

    (N, C, H, W) -> (N, C, H, W). The cells are x pooled to a grid, and both convolutions run along the channels; that
    of the cells runs on from one cell to the next. Adaptive mean pooling also resizes a. The kernel size is that of
    ECA.
    """

    local_size: int = 5
    local_weight: float = 0.5
    gamma: float = 2
    beta: float = 1

    name: ClassVar[str] = "mlca"
    paper: ClassVar[str] = (
        "Wan et al., Mixed Local Channel Attention for Object Detection, Engineering Applications of Artificial "
        "Intelligence 2023, doi:10.1016/j.engappai.2023.106442"
    )
    planar: ClassVar[bool] = True

    def __post_init__(self):
        ECA(gamma=self.gamma, beta=self.beta)
        check_least("local_size", self.local_size, 1)
        check_number("local_weight", self.local_weight)
        if not 0 <= self.local_weight <= 1:
            raise UsageError(
                expected="local_weight between 0 and 1",
                received=repr(self.local_weight),
                do="pass 0.5, the paper's, or another share of the local gate",
            )

    def parts(self, channels: int) -> Parts:
        conv = ChannelConv(ECA(gamma=self.gamma, beta=self.beta).kernel(channels), last=True)
        return {"conv": conv, "conv_local": conv, "gate": Gate("full", activation="linear", first=0.5)}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        cells = F.adaptive_pool(x, "mean", (self.local_size, self.local_size))
        mean = F.mean(cells, F.hw)
        whole = F.sigmoid(F.from_sequence(p.conv(F.to_sequence(mean)), mean))
        local = F.sigmoid(F.from_sequence(p.conv_local(F.to_sequence(cells)), cells))
        mixed = whole * (1 - self.local_weight) + local * self.local_weight
        return p.gate(x, F.adaptive_pool(mixed, "mean", (F.size(x, F.h), F.size(x, F.w))))
