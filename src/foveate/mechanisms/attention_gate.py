"""The attention gate of Attention U-Net: a coarser map says which positions of a skip connection to keep."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_context, check_flag, check_least, check_smallest
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts, Replace
from foveate.spec import Mechanism, hidden_units, published


@dataclass(frozen=True)
class AttentionGate(Mechanism):
    """y = BN(W (a x)), a = sigmoid(psi(relu(theta(x) + phi(g)))); (N, C, H, W), (N, D, H', W') -> (N, C, H, W).

    The context g is the coarser map, by default x itself. theta is a convolution of size and stride `stride` to
    `inner_channels` (default C // 2). As in the paper's equations, `transform=False` returns a x. The released gate for
    classification is stride=1, transform=False, context_bias=False, scores="mean_flow": shares of the positions, from
    the smallest score on. "softmax" takes other shares.
    """

    context_channels: int | None = None
    inner_channels: int | None = None
    stride: int = 2
    activation: Literal["relu", "softplus"] = "relu"
    scores: Literal["sigmoid", "softmax", "mean_flow"] = "sigmoid"
    transform: bool = True
    context_bias: bool = True

    name: ClassVar[str] = "attention_gate"
    paper: ClassVar[str] = (
        "Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018, arXiv:1804.03999, "
        "equations 1 and 2"
    )

    def __post_init__(self):
        for option in ("context_channels", "inner_channels"):
            if (count := getattr(self, option)) is not None:
                check_least(option, count, 1)
        check_least("stride", self.stride, 1)
        check_choice("activation", self.activation, ("relu", "softplus"))
        check_choice("scores", self.scores, ("sigmoid", "softmax", "mean_flow"))
        check_flag("transform", self.transform)
        check_flag("context_bias", self.context_bias)

    def parts(self, channels: int) -> Parts:
        inner = self.inner_channels or hidden_units(channels, 2)
        gate = {
            "theta": Conv(channels, inner, self.stride, bias=False, stride=self.stride, padding="valid"),
            "phi": Conv(self.context_channels or channels, inner, bias=self.context_bias),
            "psi": Conv(inner, 1, last=True),
            "gate": Gate("spatial", activation="linear", offset=0.5 if self.scores == "sigmoid" else 0.0),
        }
        if not self.transform:
            return gate
        output = {"project": Conv(channels, channels), "norm": Norm(channels, last=True)}
        return {**published(gate), **output, "replace": Replace(channels, channels)}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array, context: Array | None = None) -> Array:
        context = x if context is None else context
        check_context(F.size(context, F.c), self.context_channels or F.size(x, F.c))
        check_smallest(self.name, F.size(x, F.h), F.size(x, F.w), self.stride, "pass stride=1, or larger maps")
        grid = p.theta(x)
        joined = grid + F.resize(p.phi(context), grid, "bilinear")
        scores = p.psi(F.relu(joined) if self.activation == "relu" else softplus(F, joined))
        if self.scores == "sigmoid":
            shares = F.sigmoid(scores) - 0.5  # the gate adds the 0.5, so that scores of 0 can leave x unchanged
        elif self.scores == "softmax":
            shares = F.softmax(scores, F.hw)
        else:
            shares = scores + F.max(-scores, F.hw)
            total = F.sum(shares, F.hw)
            shares = shares / F.maximum(total, 0 * total + 1e-6)  # 0 where all scores are equal
        y = p.gate(x, F.resize(shares, x, "bilinear"))
        return p.replace(x, p.norm(p.project(y))) if self.transform else y


def softplus(F: Ops[Array], x: Array) -> Array:
    """Return log(1 + exp(x)), as the smooth maximum of x and 0."""
    channels = F.size(x, F.c)
    alone = F.group(x, channels)
    return F.ungroup(F.logsumexp(F.concat([alone, 0 * alone], F.c), F.c), channels)
