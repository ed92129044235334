"""ELA: efficient local attention."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_flag, check_groups, check_kernel, check_least
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class ELA(Mechanism):
    """y = x * sigmoid(norm(conv(mean_w(x)))) * sigmoid(norm(conv(mean_h(x)))); (N, C, H, W) -> (N, C, H, W).

    The authors released no code. As in the listing that people copy, rows and columns share the convolution and the
    norm; the paper's equations and timm have one for each (`shared=False`). timm also has 1 group in the norms and a
    SiLU after them. `groups` are those of the convolution, None for one per channel. The paper's versions: tiny with
    kernel 5 and 32 groups in the norm, base as here, small with kernel 5 and large with 7, both with C / 8 groups.
    """

    kernel_size: int = 7
    groups: int | None = None
    norm_groups: int = 16
    shared: bool = True
    bias: bool = False
    activation: Literal["silu"] | None = None
    skip: bool = False

    name: ClassVar[str] = "ela"
    paper: ClassVar[str] = (
        "Xu and Wan, ELA: Efficient Local Attention for Deep Convolutional Neural Networks, 2024, arXiv:2403.01123"
    )

    def __post_init__(self):
        check_kernel(self.kernel_size)
        for option, count in (("groups", self.groups), ("norm_groups", self.norm_groups)):
            if count is not None:
                check_least(option, count, 1)
        check_choice("activation", self.activation, (None, "silu"))
        for option in ("shared", "bias", "skip"):
            check_flag(option, getattr(self, option))

    @property
    def no_identity(self) -> str:
        return "with skip=True it adds x to the gated x" if self.skip else ""

    def parts(self, channels: int) -> Parts:
        groups = channels if self.groups is None else self.groups
        check_groups("groups", groups, channels)
        check_groups("norm_groups", self.norm_groups, channels)

        norm = Norm(channels, kind="group", groups=self.norm_groups, last=True)
        conv = Conv(channels, channels, (self.kernel_size, 1), self.bias, groups=groups)
        column = {} if self.shared else {"column": {"conv": conv, "norm": norm}}
        return {
            "row": {"conv": conv, "norm": norm},
            **column,
            "row_gate": Gate("row"),
            "column_gate": Gate("column"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        rows = self.logits(F, p.row, F.mean(x, F.w))
        columns = self.logits(F, p.row if self.shared else p.column, F.swap(F.mean(x, F.h), F.h, F.w))
        y = p.column_gate(p.row_gate(x, rows), F.swap(columns, F.h, F.w))
        return x + y if self.skip else y

    def logits(self, F: Ops[Array], p: Bound[Array], profile: Array) -> Array:
        """Return the gate of a profile (N, C, L, 1) before its sigmoid."""
        z = p.norm(p.conv(profile))
        return F.silu(z) if self.activation == "silu" else z
