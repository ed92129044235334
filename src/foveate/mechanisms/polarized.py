"""Polarized self-attention."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class PolarizedAttention(Mechanism):
    """One gate per channel and one per position, each from a softmax over positions; (N, C, H, W) -> (N, C, H, W).

    "sequential" gates the channels, then the positions of the result, as in the released networks. "parallel" adds the
    two gated inputs. The released classes also differ inside the gates, so their weights do not fit each other.
    """

    order: Literal["sequential", "parallel"] = "sequential"

    name: ClassVar[str] = "polarized"
    paper: ClassVar[str] = (
        "Liu et al., Polarized Self-Attention, Neurocomputing 2022, arXiv:2107.00782, equations 1 to 5"
    )

    def __post_init__(self):
        check_choice("order", self.order, ("sequential", "parallel"))

    @property
    def no_identity(self) -> str:
        return "" if self.order == "sequential" else "its spatial gate is the sigmoid of a softmax, which is never 0"

    def parts(self, channels: int) -> Parts:
        inner = hidden_units(channels, 2)
        common = {
            "channel_query": Conv(channels, 1, bias=False),
            "channel_value": Conv(channels, inner, bias=False),
            "spatial_query": Conv(channels, inner, bias=False, last=True),
            "spatial_value": Conv(channels, inner, bias=False),
            "channel": Gate("channel"),
            "spatial": Gate("spatial"),
        }
        if self.order == "parallel":
            return {**common, "expand": Conv(inner, channels, bias=False, last=True)}
        hidden = hidden_units(inner, 4)
        mlp = {"reduce": Conv(inner, hidden), "norm": Norm(hidden, kind="layer")}
        return {**common, **mlp, "expand": Conv(hidden, channels, last=True)}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        # a linear map of the weighted sum is the weighted sum of the linear map, and the mean likewise
        pooled = F.attention_pool(x, p.channel_query(x))
        logits = p.channel_value(pooled)
        if self.order == "parallel":
            shares = F.softmax(self.scores(F, p, x, p.spatial_value(x)), F.hw)
            return p.channel(x, p.expand(logits)) + p.spatial(x, shares)
        x = p.channel(x, p.expand(F.relu(p.norm(p.reduce(logits)))))
        return p.spatial(x, self.scores(F, p, x, F.softmax(p.spatial_value(x), F.hw)))

    def scores(self, F: Ops[Array], p: Bound[Array], x: Array, values: Array) -> Array:
        """Return the products of the pooled query and the values, (N, 1, H, W)."""
        return F.matmul(F.transpose(p.spatial_query(F.mean(x, F.hw))), values)
