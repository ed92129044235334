"""Effective squeeze-and-excitation: one gate per channel from one layer that keeps all channels."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism


@dataclass(frozen=True)
class EffectiveSE(Mechanism):
    """y = x * hard_sigmoid(W mean_hw(x) + b), with relu6(z + 3) / 6; (N, C, H, W) -> (N, C, H, W).

    W has C^2 weights. The gradient of the released code's hard sigmoid is 0 where |z| > 3; the paper writes a sigmoid.
    """

    activation: Literal["hard_sigmoid", "sigmoid"] = "hard_sigmoid"

    name: ClassVar[str] = "ese"
    paper: ClassVar[str] = (
        "Lee and Park, CenterMask: Real-Time Anchor-Free Instance Segmentation, CVPR 2020, arXiv:1911.06667"
    )

    def __post_init__(self):
        check_choice("activation", self.activation, ("hard_sigmoid", "sigmoid"))

    def parts(self, channels: int) -> Parts:
        return {"fc": Conv(channels, channels, last=True), "gate": Gate("channel", activation=self.activation)}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, p.fc(F.mean(x, F.hw)))
