"""Global context: one vector pooled by attention over the positions is added to every position."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_number, check_reduction
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class GlobalContext(Mechanism):
    """y = x + W2 relu(norm(W1 z)) with z = sum_hw(softmax_hw(w x) x); (N, C, H, W) -> (N, C, H, W).

    With `fusion="mul"` y = x * sigmoid(W2 relu(norm(W1 z))); "mul-add" then adds too. `pool="avg"` takes the mean for
    z. The norm runs over the C / r hidden units. At least 2 are kept, because 1 normalised value is always 0. As in the
    released code, W2 begins at 0.
    """

    reduction: float = 16
    pool: Literal["attention", "avg"] = "attention"
    fusion: Literal["add", "mul", "mul-add"] = "add"
    eps: float = 1e-5

    name: ClassVar[str] = "global_context"
    paper: ClassVar[str] = (
        "Cao et al., GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond, ICCVW 2019, "
        "arXiv:1904.11492, equation 4"
    )

    def __post_init__(self):
        check_reduction(self.reduction)
        check_number("eps", self.eps, above=0)
        check_choice("pool", self.pool, ("attention", "avg"))
        check_choice("fusion", self.fusion, ("add", "mul", "mul-add"))

    @property
    def no_record(self) -> str:
        return "it adds one vector to every position" if (self.pool, self.fusion) == ("avg", "add") else ""

    def parts(self, channels: int) -> Parts:
        hidden = hidden_units(channels, self.reduction, least=2)
        transform = {
            "reduce": Conv(channels, hidden),
            "norm": Norm(hidden, eps=self.eps, kind="layer"),
            "expand": Conv(hidden, channels, last=True, zero=True),
        }
        mask = {"mask": Conv(channels, 1)} if self.pool == "attention" else {}
        gate = {"gate": Gate("channel")} if "mul" in self.fusion else {}
        return {**mask, **dict.fromkeys(self.fusion.split("-"), transform), **gate}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        z = self._pool(F, p, x)
        y = p.gate(x, self._transform(F, p.mul, z)) if "mul" in self.fusion else x
        return y + self._transform(F, p.add, z) if "add" in self.fusion else y

    def _pool(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        """Return the mean over the positions, or their sum by shares of attention."""
        return F.mean(x, F.hw) if self.pool == "avg" else F.attention_pool(x, p.mask(x))

    def _transform(self, F: Ops[Array], p: Bound[Array], z: Array) -> Array:
        return p.expand(F.relu(p.norm(p.reduce(z))))
