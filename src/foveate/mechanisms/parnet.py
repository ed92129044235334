"""The block of ParNet: convolutions beside a channel gate, whose normalised input skips them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_flag, check_groups, check_least
from foveate.errors import UsageError
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts, Replace
from foveate.spec import Mechanism


@dataclass(frozen=True)
class ParNet(Mechanism):
    """y = act(BN(conv3x3(x)) + BN(conv1x1(x)) + z g), z = BN(x), g = sigmoid(W mean_hw(z)); (N, C, H, W) -> the same.

    Where the output has another shape, (N, out_channels, H / stride, W / stride), it is act(2 g) times the two
    convolutions with g from x. `gate_only` leaves the convolutions and the activation out: y = z g.
    """

    out_channels: int | None = None
    stride: Literal[1, 2] = 1
    groups: int = 1
    activation: Literal["silu", "relu"] = "silu"
    gate_only: bool = False

    name: ClassVar[str] = "parnet"
    paper: ClassVar[str] = "Goyal et al., Non-deep Networks, NeurIPS 2022, arXiv:2110.07641, figure 2 and section 3.1"

    def __post_init__(self):
        if self.out_channels is not None:
            check_least("out_channels", self.out_channels, 1)
        check_choice("stride", self.stride, (1, 2))
        check_least("groups", self.groups, 1)
        check_choice("activation", self.activation, ("silu", "relu"))
        check_flag("gate_only", self.gate_only)
        if self.gate_only and (self.out_channels is not None or self.stride > 1):
            raise UsageError(
                expected="gate_only=True without out_channels and stride, as a gate keeps the shape",
                received=f"out_channels={self.out_channels}, stride={self.stride}",
                do="leave them out, or leave gate_only out",
            )

    @property
    def no_identity(self) -> str:
        ends = self.activation == "relu" and not self.gate_only
        return "it ends in a ReLU, behind which weights of 0 have no gradient" if ends else ""

    def parts(self, channels: int) -> Parts:
        outputs, groups = self.out_channels or channels, self.groups
        for width in (channels, outputs):
            check_groups("groups", groups, width)
        point = Conv(channels, outputs, bias=False, groups=groups)
        dense = Conv(channels, outputs, 3, bias=False, groups=groups, stride=self.stride)
        norm = Norm(outputs, last=True)
        convs = {"dense": {"conv": dense, "norm": norm}, "point": {"conv": point, "norm": norm}}
        skip = {"norm": norm} if (outputs, self.stride) == (channels, 1) else {}
        gate, replace = Gate("channel", published=True), Replace(channels, outputs, self.stride)
        return {**({} if self.gate_only else convs), **skip, "squeeze": point, "gate": gate, "replace": replace}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        keeps = hasattr(p, "norm")
        z = p.norm(x) if keeps else x
        logits = p.squeeze(F.mean(z, F.hw))
        if self.gate_only:
            return p.replace(x, p.gate(z, logits))
        small = x
        if self.stride == 2:
            check_even(F.size(x, F.h), F.size(x, F.w))
            small = F.pool(x, "mean", 2, 2)
        convs = p.dense.norm(p.dense.conv(x)) + p.point.norm(p.point.conv(small))
        y = convs + p.gate(z, logits) if keeps else 2 * p.gate(convs, logits)
        y = F.silu(y) if self.activation == "silu" else F.relu(y)
        return p.replace(x, F.shuffle(y, self.groups) if self.groups > 1 else y)


def check_even(*sizes: object) -> None:
    """Refuse an odd height or width where it is known. Raises UsageError."""
    if any(isinstance(size, int) and size % 2 for size in sizes):
        raise UsageError(
            expected="an even height and width for parnet with stride=2",
            received=f"a map of {' x '.join(map(str, sizes))}",
            do="pad the map by one row or column, or pass stride=1",
        )
