"""Gather-excite: each value is gated by what lies around it, in the whole map or in a neighbourhood."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from foveate.checks import check_choice, check_least, check_reduction
from foveate.errors import UsageError
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Part, Parts
from foveate.spec import Mechanism, hidden_units

STEPS = {2: 1, 4: 2, 8: 3}  # convolutions of stride 2 by extent


@dataclass(frozen=True)
class GatherExcite(Mechanism):
    """y = x * sigmoid(gather(x)), each gathered value repeated over its neighbourhood; (N, C, H, W) -> (N, C, H, W).

    "theta-minus" gathers by a mean, without parameters; "theta" by depthwise convolutions with norms; "theta-plus" adds
    W2 relu(W1 relu(gather(x))). With `extent=None` the neighbourhood is the whole map. A convolution over it has the
    map's `size`, (H, W), and takes no other map.
    """

    variant: Literal["theta-minus", "theta", "theta-plus"] = "theta-minus"
    extent: Literal[2, 4, 8] | None = None
    size: tuple[int, int] | None = None
    reduction: float = 16

    name: ClassVar[str] = "gather_excite"
    paper: ClassVar[str] = (
        "Hu et al., Gather-Excite: Exploiting Feature Context in Convolutional Neural Networks, NeurIPS 2018, "
        "arXiv:1810.12348"
    )

    def __post_init__(self):
        check_choice("variant", self.variant, ("theta-minus", "theta", "theta-plus"))
        check_choice("extent", self.extent, (None, *STEPS))
        check_reduction(self.reduction)
        needed = self.variant != "theta-minus" and self.extent is None
        if needed != (self.size is not None):
            raise UsageError(
                expected='size=(H, W) for "theta" and "theta-plus" over the whole map, and for nothing else',
                received=f"variant={self.variant!r}, extent={self.extent!r}, size={self.size!r}",
                do="pass the size of the maps, or extent=2, 4 or 8" if needed else "leave size out",
            )
        if self.size is not None:
            if not isinstance(self.size, Sequence) or len(self.size) != 2:
                raise UsageError(
                    expected="size as (H, W)", received=repr(self.size), do="pass the size of the maps, such as (7, 7)"
                )
            for side in self.size:
                check_least("each of size", side, 1, "pass the size of the maps, such as (7, 7)")
            object.__setattr__(self, "size", tuple(self.size))

    @property
    def no_identity(self) -> str:
        return "it has no weights that could begin at 0" if self.variant == "theta-minus" else ""

    @property
    def steps(self) -> int:
        """The number of convolutions that gather."""
        return 0 if self.variant == "theta-minus" else 1 if self.extent is None else STEPS[self.extent]

    def parts(self, channels: int) -> Parts:
        parts: dict[str, Part | Parts] = {}
        for step in range(1, self.steps + 1):
            if self.size is None:
                conv = Conv(channels, channels, 3, bias=False, groups=channels, stride=2)
            else:
                conv = Conv(channels, channels, self.size, bias=False, groups=channels, padding="valid")
            last = self.variant == "theta" and step == self.steps
            parts[f"gather{step}"] = {"conv": conv, "norm": Norm(channels, last=last)}
        if self.variant == "theta-plus":
            hidden = hidden_units(channels, self.reduction)
            parts |= {"reduce": Conv(channels, hidden), "expand": Conv(hidden, channels, last=True)}
        return {**parts, "gate": Gate("channel" if self.extent is None else "full")}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        gathered = self.gather(F, p, x)
        if self.variant == "theta-plus":
            gathered = p.expand(F.relu(p.reduce(F.relu(gathered))))
        return p.gate(x, gathered if self.extent is None else F.resize(gathered, x, "nearest"))

    def gather(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        """Return what lies around the values of x, one value for each neighbourhood."""
        if self.variant == "theta-minus":
            e = self.extent
            return F.mean(x, F.hw) if e is None else F.pool(x, "mean_inside", 2 * e - 1, e, e - 1)
        if self.size is not None:
            self._check_size((F.size(x, F.h), F.size(x, F.w)))
        for step in range(1, self.steps + 1):
            layers = getattr(p, f"gather{step}")
            x = layers.norm(layers.conv(F.relu(x) if step > 1 else x))
        return x

    def _check_size(self, received: tuple[object, object]) -> None:
        """Raise UsageError for a map of another size. A size may be unknown while a graph is built."""
        if all(isinstance(side, int) for side in received) and received != self.size:
            raise UsageError(
                expected=f"maps of the size {self.size}, which the convolution covers",
                received=f"{received}",
                do=f"build the module with size={received}, or with extent=2, 4 or 8, which takes any size",
            )
