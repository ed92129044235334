"""Channel attention: the first half of CBAM."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_flag, check_reduction
from foveate.errors import UsageError
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism, hidden_units

Pool = Literal["avg", "max", "lp", "lse"]


@dataclass(frozen=True)
class ChannelAttention(Mechanism):
    """y = x * sigmoid(sum over pools of MLP(pool_hw(x))), the MLP shared by the pools; (N, C, H, W) -> (N, C, H, W).

    The paper's equation 2 shows no biases; the released code has them. "lp" is sqrt(sum x^2), "lse" log(sum exp x).
    """

    reduction: float = 16
    bias: bool = True
    pools: tuple[Pool, ...] = ("avg", "max")

    name: ClassVar[str] = "channel"
    paper: ClassVar[str] = (
        "Woo et al., CBAM: Convolutional Block Attention Module, ECCV 2018, arXiv:1807.06521, equation 2"
    )

    def __post_init__(self):
        check_reduction(self.reduction)
        check_flag("bias", self.bias)
        if not isinstance(self.pools, (str, Sequence)) or not self.pools:
            raise UsageError(
                expected="at least one channel pooling", received=repr(self.pools), do='pass pools=("avg", "max")'
            )
        object.__setattr__(self, "pools", (self.pools,) if isinstance(self.pools, str) else tuple(self.pools))
        for pool in self.pools:
            check_choice("each of pools", pool, ("avg", "max", "lp", "lse"))

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction)
        squeeze, expand = Conv(channels, hidden, bias=self.bias), Conv(hidden, channels, bias=self.bias, last=True)
        return {"reduce": squeeze, "expand": expand, "gate": Gate("channel")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, self.logits(F, p, x))

    def logits(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        """Return the gate before its sigmoid, (N, C, 1, 1)."""
        pooling = {"avg": F.mean, "max": F.max, "lp": F.norm, "lse": F.logsumexp}
        return reduce(add, [p.expand(F.relu(p.reduce(pooling[pool](x, F.hw)))) for pool in self.pools])
