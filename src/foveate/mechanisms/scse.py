"""scSE: a channel gate and a spatial gate side by side; the greater result counts."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class SCSE(Mechanism):
    """y = max(x * sigmoid(W2 relu(W1 mean_hw(x))), x * sigmoid(w x)), entry by entry; (N, C, H, W) -> (N, C, H, W).

    The paper's text and most copies add the two: `mode="add"`. The modes "channel" (cSE) and "spatial" (sSE) have one.
    """

    reduction: float = 2
    mode: Literal["max", "add", "channel", "spatial"] = "max"

    name: ClassVar[str] = "scse"
    paper: ClassVar[str] = (
        "Roy et al., Concurrent Spatial and Channel Squeeze & Excitation in Fully Convolutional Networks, MICCAI 2018, "
        "arXiv:1803.02579"
    )

    def __post_init__(self):
        check_reduction(self.reduction)
        check_choice("mode", self.mode, ("max", "add", "channel", "spatial"))

    def parts(self, channels: int) -> Parts:
        halves = self.mode == "add"  # with the identity start, x / 2 + x / 2
        parts: dict[str, Parts] = {"channel": {}, "spatial": {}}
        if self.mode != "spatial":
            hidden = hidden_units(channels, self.reduction)
            squeeze, expand = Conv(channels, hidden), Conv(hidden, channels, last=True)
            parts["channel"] = {"reduce": squeeze, "expand": expand, "gate": Gate("channel", published=halves)}
        if self.mode != "channel":
            parts["spatial"] = {"conv": Conv(channels, 1, last=True), "gate": Gate("spatial", published=halves)}
        return {name: branch for name, branch in parts.items() if branch}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        match self.mode:
            case "max":
                return F.maximum(self._channel(F, p.channel, x), self._spatial(F, p.spatial, x))
            case "add":
                return self._channel(F, p.channel, x) + self._spatial(F, p.spatial, x)
            case "channel":
                return self._channel(F, p.channel, x)
            case "spatial":
                return self._spatial(F, p.spatial, x)

    def _channel(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, p.expand(F.relu(p.reduce(F.mean(x, F.hw)))))

    def _spatial(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        return p.gate(x, p.conv(x))
