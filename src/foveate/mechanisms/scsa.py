"""Spatial and channel synergistic attention (SCSA): gates of rows and columns, then attention between channels."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import (
    check_choice,
    check_flag,
    check_groups,
    check_kernel,
    check_least,
    check_multiple,
    check_smallest,
)
from foveate.errors import UsageError
from foveate.ops import Array, Axes, Bound, Ops
from foveate.parts import Activation, Conv, Gate, Norm, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class SCSA(Mechanism):
    """x' = x * g(norm(convs(mean_w x))) * g(norm(convs(mean_h x))), y = x' * g(mean_hw(softmax(q k^T / sqrt d) v)).

    (N, C, H, W) -> (N, C, H, W). A quarter of the channels has each of the four kernel sizes, and both profiles share
    the convolutions. q, k and v are the pooled x' times a number for each channel; the softmax is over the d channels
    of a head. g is a sigmoid, or a softmax over the rows, columns or channels. The windows lie side by side, and
    rows and columns beyond the last are left out; `pool="global"` is the mean of the whole map, of any size.
    """

    heads: int = 1
    window: int = 7
    pool: Literal["mean", "max", "global"] = "mean"
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    kernel_sizes: tuple[int, int, int, int] = (3, 5, 7, 9)
    bias: bool = False

    name: ClassVar[str] = "scsa"
    paper: ClassVar[str] = (
        "Si et al., SCSA: Exploring the Synergistic Effects Between Spatial and Channel Attention, Neurocomputing "
        "2025, arXiv:2407.05128, equations 1 to 8"
    )

    def __post_init__(self):
        check_least("heads", self.heads, 1)
        check_least("window", self.window, 1)
        check_choice("pool", self.pool, ("mean", "max", "global"))
        check_choice("gate", self.gate, ("sigmoid", "softmax"))
        check_flag("bias", self.bias)
        if not isinstance(self.kernel_sizes, tuple | list) or len(self.kernel_sizes) != 4:
            raise UsageError(
                expected="four kernel_sizes, one for each quarter of the channels",
                received=repr(self.kernel_sizes),
                do="pass four odd numbers such as (3, 5, 7, 9)",
            )
        object.__setattr__(self, "kernel_sizes", tuple(self.kernel_sizes))
        for size in self.kernel_sizes:
            check_kernel(size)

    @property
    def no_identity(self) -> str:
        return "" if self.gate == "sigmoid" else "its softmax gates sum to 1 over the rows, columns and channels"

    def parts(self, channels: int) -> Parts:
        check_multiple(channels, 4)
        check_groups("heads", self.heads, channels)
        quarter = channels // 4
        names = ("local", "small", "medium", "large")
        convs = {
            name: Conv(quarter, quarter, (size, 1), groups=quarter)
            for name, size in zip(names, self.kernel_sizes, strict=True)
        }
        norm = Norm(channels, kind="group", groups=4, last=True)
        scale = Conv(channels, channels, bias=self.bias, groups=channels)
        activation: Activation = "sigmoid" if self.gate == "sigmoid" else "linear"
        return {
            **convs,
            "row_norm": norm,
            "column_norm": norm,
            "row": Gate("row", activation=activation),
            "column": Gate("column", activation=activation),
            "norm": Norm(channels, kind="group"),
            "query": scale,
            "key": scale,
            "value": Conv(channels, channels, bias=self.bias, groups=channels, last=True),
            "channel": Gate("channel", activation=activation),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        rows = p.row_norm(self._convolve(F, p, F.mean(x, F.w)))
        columns = p.column_norm(self._convolve(F, p, F.swap(F.mean(x, F.h), F.h, F.w)))
        x = p.row(x, self._logits(F, rows, F.h))
        x = p.column(x, F.swap(self._logits(F, columns, F.h), F.h, F.w))

        z = p.norm(self._pooled(F, x))
        # the mean over positions of the weighted values is that of the values, weighted
        q, k, v = (F.group(each, self.heads) for each in (p.query(z), p.key(z), p.value(F.mean(z, F.hw))))
        scale = F.size(q, F.c) ** -0.5
        mixed = F.ungroup(F.attend_channels(q, k, v, scale), self.heads)
        return p.channel(x, self._logits(F, mixed, F.c))

    def _convolve(self, F: Ops[Array], p: Bound[Array], profile: Array) -> Array:
        """Convolve each quarter of the channels of a profile (N, C, L, 1)."""
        a, b, c, d = F.split(profile, [F.size(profile, F.c) // 4] * 4, F.c)
        return F.concat([p.local(a), p.small(b), p.medium(c), p.large(d)], F.c)

    def _pooled(self, F: Ops[Array], x: Array) -> Array:
        if self.pool == "global":
            return F.mean(x, F.hw)
        do = 'pass a smaller window, or pool="global"'
        check_smallest(self.name, F.size(x, F.h), F.size(x, F.w), self.window, do)
        return F.pool(x, self.pool, self.window, self.window)

    def _logits(self, F: Ops[Array], z: Array, axis: Axes) -> Array:
        """Return what the gate gets: its shares of 1 along the axis, or z for its sigmoid."""
        return F.softmax(z, axis) if self.gate == "softmax" else z
