"""Strip pooling: gates from the means of whole rows and columns."""

from dataclasses import dataclass
from typing import ClassVar

from foveate.checks import check_least
from foveate.errors import UsageError
from foveate.ops import Array, Bound, Ops
from foveate.parts import Conv, Gate, Norm, Parts
from foveate.spec import Mechanism, hidden_units


@dataclass(frozen=True)
class StripPooling(Mechanism):
    """y = x * sigmoid(W relu(u + v)), u from the means of rows, v of columns; (N, C, H, W) -> (N, C, H, W).

    With `pools`, the module that the same paper puts into the head instead: relu of x and of convolutions of the rows,
    the columns and the means of grids of these sizes, in the paper (20, 12). Smaller maps are stretched to the grids.
    """

    pools: tuple[int, ...] = ()

    name: ClassVar[str] = "strip_pooling"
    paper: ClassVar[str] = (
        "Hou et al., Strip Pooling: Rethinking Spatial Pooling for Scene Parsing, CVPR 2020, arXiv:2003.13328, "
        "equations 3 and 4"
    )

    def __post_init__(self):
        if not isinstance(self.pools, list | tuple) or len(self.pools) not in (0, 2):
            raise UsageError(
                expected="pools as two sizes of grids, or ()",
                received=repr(self.pools),
                do="pass (20, 12), the paper's, or leave pools out for the gate",
            )
        for size in self.pools:
            check_least("each of pools", size, 1)
        object.__setattr__(self, "pools", tuple(self.pools))

    @property
    def no_identity(self) -> str:
        return "with pools it ends in a ReLU, which removes negative values" if self.pools else ""

    @property
    def no_record(self) -> str:
        return "with pools it adds to the features, and weighs nothing" if self.pools else ""

    def parts(self, channels: int) -> Parts:
        if not self.pools:
            row, column = block(channels, channels, (3, 1)), block(channels, channels, (1, 3))
            return {"row": row, "column": column, "mix": Conv(channels, channels, last=True), "gate": Gate("full")}
        inner = hidden_units(channels, 4)
        kernels = {"local": 3, "grid0": 3, "grid1": 3, "row": (3, 1), "column": (1, 3), "grids": 3, "strips": 3}
        enter = {name: block(channels, inner) for name in ("enter_grids", "enter_strips")}
        inside = {name: block(inner, inner, kernel) for name, kernel in kernels.items()}
        return {**enter, **inside, "join": block(2 * inner, channels)}

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        if not self.pools:
            strips = apply(p.row, F.mean(x, F.w)) + apply(p.column, F.mean(x, F.h))
            return p.gate(x, p.mix(F.relu(strips)))
        a, b = F.relu(apply(p.enter_grids, x)), F.relu(apply(p.enter_strips, x))
        grids = [F.adaptive_pool(a, "mean", (size, size)) for size in self.pools]
        of_grids = [apply(part, grid) for part, grid in zip((p.grid0, p.grid1), grids, strict=True)]
        of_strips = [apply(p.column, F.mean(b, F.h)), apply(p.row, F.mean(b, F.w))]
        first, second = (F.resize(one, x, "aligned") for one in of_grids)
        across, down = (F.resize(one, x, "aligned") for one in of_strips)
        mixed = F.relu(apply(p.local, a) + first + second), F.relu(across + down)
        joined = [F.relu(apply(part, one)) for part, one in zip((p.grids, p.strips), mixed, strict=True)]
        return F.relu(x + apply(p.join, F.concat(joined, F.c)))


def block(inputs: int, outputs: int, kernel: int | tuple[int, int] = 1) -> Parts:
    """Return a convolution with a norm."""
    return {"conv": Conv(inputs, outputs, kernel, bias=False), "norm": Norm(outputs)}


def apply(p: Bound[Array], x: Array) -> Array:
    """Return the norm of the convolution."""
    return p.norm(p.conv(x))
