"""The unit of selective kernel networks: convolutions of several dilations, weighed for each channel."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_groups, check_least, check_reduction
from foveate.errors import UsageError
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class SK(Mechanism):
    """y = sum of a_m u_m, u_m = relu(BN(conv3x3(x))) with dilation m; (N, C, H, W) -> (N, C, H, W).

    a_m is the softmax over the branches of W2 relu(BN(W1 mean_hw(sum of u_m))), one weight for each channel. As in the
    released networks, the convolutions have 32 groups. The unit replaces a convolution with its norm and ReLU.
    """

    groups: int = 32
    reduction: float = 16
    min_hidden: int = 32
    dilations: tuple[int, ...] = (1, 2)

    name: ClassVar[str] = "sk"
    paper: ClassVar[str] = "Li et al., Selective Kernel Networks, CVPR 2019, arXiv:1903.06586, equations 1 to 6"

    def __post_init__(self):
        check_least("groups", self.groups, 1)
        check_reduction(self.reduction)
        check_least("min_hidden", self.min_hidden, 0)
        if not isinstance(self.dilations, list | tuple) or len(self.dilations) < 2:
            raise UsageError(
                expected="dilations as two or more numbers", received=repr(self.dilations), do="pass the paper's (1, 2)"
            )
        for dilation in self.dilations:
            check_least("each of dilations", dilation, 1)
        object.__setattr__(self, "dilations", tuple(self.dilations))

    @property
    def no_identity(self) -> str:
        return "a ReLU ends its branches, so weights of 0 have no gradient"

    def parts(self, channels: int) -> Parts:
        check_groups("groups", self.groups, channels)
        hidden, count = hidden_units(channels, self.reduction, self.min_hidden), len(self.dilations)
        convs = [Conv(channels, channels, 3, bias=False, groups=self.groups, dilation=one) for one in self.dilations]
        branches = {f"branch{m}": {"conv": conv, "norm": Norm(channels, momentum=0.05)} for m, conv in enumerate(convs)}
        reduce, norm = Conv(channels, hidden, bias=False), Norm(hidden, momentum=0.05)
        select = Conv(hidden, count * channels, bias=False)
        gates = {f"gate{m}": Gate("channel", activation="linear") for m in range(count)}
        return {**branches, "reduce": reduce, "norm": norm, "select": select, **gates}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        count, channels = len(self.dilations), F.size(x, F.c)
        branches = [getattr(p, f"branch{m}") for m in range(count)]
        maps = [F.relu(branch.norm(branch.conv(x))) for branch in branches]
        logits = p.select(F.relu(p.norm(p.reduce(F.mean(total(maps), F.hw)))))
        pieces = F.split(logits, [channels] * count, F.c)
        rows = F.concat([pieces[m] for m in range(count)], F.h)
        weights = F.split(F.softmax(rows, F.h), [1] * count, F.h)
        return total([getattr(p, f"gate{m}")(maps[m], weights[m]) for m in range(count)])


def total(maps: list[Array]) -> Array:
    """Return the sum of the maps."""
    return sum(maps[1:], start=maps[0])
