"""Shuffle attention (SA-Net): half of each group has channel gates, half has gates of positions; channels then mix."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_flag, check_least
from foveate.errors import UsageError
from foveate.ops import Array, Bound, Ops
from foveate.parts import Gate, Norm, Parts, Scale
from foveate.spec import Mechanism


@dataclass(frozen=True)
class ShuffleAttention(Mechanism):
    """y = channels of [a sigmoid(w1 mean_hw(a) + b1), b sigmoid(w2 norm(b) + b2)] in turn, for the halves a, b of x.

    (N, C, H, W) -> (N, C, H, W). The channels form groups, which share all weights; a and b are the halves of each
    group. Then the channels of the first and the second half of the map alternate; `shuffle=False` leaves them in
    place, and only then the output can equal the input at first.
    """

    groups: int = 64
    shuffle: bool = True

    name: ClassVar[str] = "shuffle"
    paper: ClassVar[str] = (
        "Zhang and Yang, SA-Net: Shuffle Attention for Deep Convolutional Neural Networks, ICASSP 2021, "
        "arXiv:2102.00240, equations 1 to 4"
    )

    def __post_init__(self):
        check_least("groups", self.groups, 1)
        check_flag("shuffle", self.shuffle)

    @property
    def no_identity(self) -> str:
        return "it shuffles the channels; shuffle=False leaves them in place" if self.shuffle else ""

    def parts(self, channels: int) -> Parts:
        if channels % (2 * self.groups):
            fitting = [groups for groups in range(1, self.groups) if channels % (2 * groups) == 0]
            raise UsageError(
                expected=f"groups of which twice as many divide the {channels} channels",
                received=f"groups={self.groups}",
                do=f"pass groups={fitting[-1]}" if fitting else "use it on an even number of channels",
            )
        half = channels // (2 * self.groups)
        scale = Scale(half, bias=True, last=True, first=0.0, first_bias=1.0)
        return {
            "channel": scale,
            "norm": Norm(half, kind="instance"),
            "position": scale,
            "channel_gate": Gate("channel"),
            "position_gate": Gate("full"),
        }

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        half = F.size(x, F.c) // (2 * self.groups)
        a, b = F.split(F.group(x, self.groups), [half, half], F.c)
        a = p.channel_gate(a, p.channel(F.mean(a, F.hw)))
        b = p.position_gate(b, p.position(p.norm(b)))
        y = F.ungroup(F.concat([a, b], F.c), self.groups)
        return F.shuffle(y, 2) if self.shuffle else y
