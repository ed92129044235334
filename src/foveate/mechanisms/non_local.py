"""The non-local block."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_flag, check_reduction, check_smallest
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Norm, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class NonLocal(Mechanism):
    """y = x + norm(W softmax(q k^T / sqrt(d)) v): each position reads all others; (N, C, H, W) -> (N, C, H, W).

    `similarity="dot"` has q k^T / (number of keys) in the place of the softmax. The released code pools the input of
    keys and values by 2 x 2 and scales by 1/sqrt(d). The paper's equation 6 has no scale, and a popular port pools the
    keys and values themselves. The norm begins with weights of 0, and so does W without a norm.
    """

    reduction: float = 2
    similarity: Literal["softmax", "dot"] = "softmax"
    scale: Literal["hidden", "channels", "none"] = "hidden"
    pool: Literal["input", "keys", "none"] = "input"
    norm: bool = True

    name: ClassVar[str] = "non_local"
    paper: ClassVar[str] = "Wang et al., Non-local Neural Networks, CVPR 2018, arXiv:1711.07971, equations 1 to 6"

    def __post_init__(self):
        check_reduction(self.reduction)
        check_choice("similarity", self.similarity, ("softmax", "dot"))
        check_choice("scale", self.scale, ("hidden", "channels", "none"))
        check_choice("pool", self.pool, ("input", "keys", "none"))
        check_flag("norm", self.norm)

    def any_rank(self, channels: int) -> bool:
        return self.pool == "none" and super().any_rank(channels)

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction)
        return {
            "query": Conv(channels, hidden),
            "key": Conv(channels, hidden),
            "value": Conv(channels, hidden),
            "out": Conv(hidden, channels, last=not self.norm, zero=not self.norm),
            **({"norm": Norm(channels, eps=1.0000001e-5, last=True, zero=True)} if self.norm else {}),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        if self.pool != "none":
            check_smallest(self.name, F.size(x, F.h), F.size(x, F.w), 2, 'pass pool="none", or larger maps')
        source = F.pool(x, "max", 2, 2) if self.pool == "input" else x
        queries, keys, values = p.query(x), p.key(source), p.value(source)
        if self.pool == "keys":
            keys, values = F.pool(keys, "max", 2, 2), F.pool(values, "max", 2, 2)
        if self.similarity == "softmax":
            scale = {"hidden": F.size(keys, F.c), "channels": F.size(x, F.c), "none": 1}[self.scale] ** -0.5
            y = F.attend(queries, keys, values, scale)
        else:
            y = F.attend_linear(queries, keys, values)
        y = p.out(y)
        return x + (p.norm(y) if self.norm else y)
