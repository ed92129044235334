"""Contextual transformer attention (CoT): a convolution whose weights each position makes from its neighbours."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag, check_kernel, check_multiple
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts, Replace
from foveate.spec import Mechanism


@dataclass(frozen=True)
class CoTAttention(Mechanism):
    """y = a0 * local + a1 * keys, with a0 + a1 = 1 for each channel; (N, C, H, W) -> (N, C, H, W).

    keys = relu(norm(conv k x k of x)), the static context. local is the values of the k x k neighbours, weighted at
    each position by what two 1x1 convolutions make of x and keys; C / 8 sets of weights serve all channels. a0 comes
    from the mean of local + keys, as in SK units. `grouped` is the form for ResNeXt (CoXt).
    """

    kernel_size: int = 3
    grouped: bool = False

    name: ClassVar[str] = "cot"
    paper: ClassVar[str] = (
        "Li et al., Contextual Transformer Networks for Visual Recognition, TPAMI 2022, arXiv:2107.12292, "
        "equations 3 to 5"
    )

    def __post_init__(self):
        check_kernel(self.kernel_size)
        check_flag("grouped", self.grouped)

    @property
    def no_identity(self) -> str:
        return "its output holds the static context behind a ReLU, and weights of 0 there have no gradient"

    @property
    def groups(self) -> int:
        """The groups of the 1x1 convolutions."""
        return 2 if self.grouped else 1

    def parts(self, channels: int) -> Parts:
        check_multiple(channels, 8 * self.groups)
        taps, hidden = self.kernel_size**2 * channels // 8, max(channels // 2, 32)
        return {
            "key": Conv(channels, channels, self.kernel_size, bias=False, groups=4 * self.groups),
            "key_norm": Norm(channels),
            "squeeze": Conv(2 * channels, channels // 2, bias=False, groups=self.groups),
            "squeeze_norm": Norm(channels // 2),
            "taps": Conv(channels // 2, taps, groups=self.groups),
            "taps_norm": Norm(taps, kind="group", groups=channels // 8),
            "value": Conv(channels, channels, bias=False, groups=self.groups),
            "value_norm": Norm(channels),
            "local_norm": Norm(channels),
            "reduce": Conv(channels, hidden),
            "reduce_norm": Norm(hidden),
            "expand": Conv(hidden, 2 * channels),
            "local_gate": Gate("channel"),
            "key_gate": Gate("channel"),
            "replace": Replace(channels, channels),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        channels = F.size(x, F.c)
        keys = F.relu(p.key_norm(p.key(x)))
        both = F.concat([x, keys], F.c)
        both = F.shuffle(both, 2) if self.grouped else both
        taps = p.taps_norm(p.taps(F.relu(p.squeeze_norm(p.squeeze(both)))))
        values, taps = (F.group(each, self.groups) for each in (p.value_norm(p.value(x)), taps))
        local = F.silu(p.local_norm(F.ungroup(F.local_conv(values, taps, self.kernel_size), self.groups)))
        logits = p.expand(F.relu(p.reduce_norm(p.reduce(F.mean(local + keys, F.hw)))))
        first, second = F.split(F.shuffle(logits, channels), [channels, channels], F.c)
        return p.replace(x, p.local_gate(local, first - second) + p.key_gate(keys, second - first))
