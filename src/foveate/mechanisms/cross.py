"""Cross attention between two feature maps, or self attention of one map."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_context, check_flag, check_least
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class CrossAttention(Mechanism):
    """y = context + softmax(q k^T / sqrt(dim)) v, with queries q from the context, and keys k and values v from x.

    (N, C, H, W), (N, D, H', W') -> (N, D, H', W'). Without a context, x attends to itself. `dim` is the width of
    queries and keys (default C). As in the listing that this comes from, `activation="relu"` can follow each linear map
    and `scale=False` drops the 1/sqrt(dim).
    """

    context_channels: int | None = None
    dim: int | None = None
    activation: Literal["relu"] | None = None
    scale: bool = True

    name: ClassVar[str] = "cross"
    keeps: ClassVar[Literal["x", "context"]] = "context"
    paper: ClassVar[str] = "Vaswani et al., Attention Is All You Need, NeurIPS 2017, arXiv:1706.03762, equation 1"

    def __post_init__(self):
        check_flag("scale", self.scale)
        check_choice("activation", self.activation, (None, "relu"))
        for option, count in (("context_channels", self.context_channels), ("dim", self.dim)):
            if count is not None:
                check_least(option, count, 1)

    @property
    def no_identity(self) -> str:
        return "a ReLU follows its last layer, so weights of 0 have no gradient" if self.activation else ""

    def parts(self, channels: int) -> Parts:
        context, dim = self.context_channels or channels, self.dim or channels
        return {"query": Conv(context, dim), "key": Conv(channels, dim), "value": Conv(channels, context, last=True)}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array, context: Array | None = None) -> Array:
        context = x if context is None else context
        check_context(F.size(context, F.c), self.context_channels or F.size(x, F.c))
        queries, keys, values = p.query(context), p.key(x), p.value(x)
        if self.activation == "relu":
            queries, keys, values = F.relu(queries), F.relu(keys), F.relu(values)
        scale = F.size(queries, F.c) ** -0.5 if self.scale else 1.0
        return context + F.attend(queries, keys, values, scale)
