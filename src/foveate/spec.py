"""What a mechanism is: frozen options, named learnable parts, and one forward over the vocabulary of `ops`."""

import dataclasses
import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from foveate.errors import ReductionWarning, UsageError
from foveate.ops import Array, Bound, Ops
from foveate.parts import ChannelConv, Constant, Conv, Gate, Norm, Part, Parts, Replace, Scale, flat

Map = TypeVar("Map")


@dataclass(frozen=True)
class Mechanism:
    """One attention method. Subclasses are frozen dataclasses whose fields are the options.

    `name` is the short name; without one it is the name of the class in small letters. `paper` is the source.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    planar: ClassVar[bool] = False
    """Whether the maths needs rows and columns where no part shows it; such a mechanism takes (N, C, H, W) only."""
    keeps: ClassVar[Literal["x", "context"]] = "x"
    """The map whose height and width the output has; attached with a context, the map of the site is this one."""

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):
            cls.name = cls.__name__.lower()

    def parts(self, channels: int) -> Parts:
        """Name the learnable parts for a feature map of `channels` channels."""
        raise NotImplementedError

    def forward(self, F: Ops[Array], p: Bound[Array], x: Array) -> Array:
        """Compute the mechanism on x (N, C, H, W) with the vocabulary F and the bound parts p."""
        raise NotImplementedError

    @property
    def no_identity(self) -> str:
        """Why no first weights leave every map unchanged, such as "it ends in a ReLU"; "" where some do."""
        return ""

    @property
    def no_record(self) -> str:
        """Why nothing of it can be recorded: neither a gate nor shares of positions or channels; "" where some can."""
        return ""

    def any_rank(self, channels: int) -> bool:
        """Return whether maps (N, C, L) and (N, C, D, H, W) work too: no part needs rows, columns or k x k positions.

        A mechanism that then asks for `F.h` or `F.w` is refused when it runs on such a map.
        """
        with warnings.catch_warnings(action="ignore", category=ReductionWarning):
            return not self.planar and not any(map(_is_planar, flat(self.parts(channels)).values()))

    @classmethod
    def takes_context(cls) -> bool:
        """Return whether `forward` takes a second map, the context."""
        return "context" in inspect.signature(cls.forward).parameters

    def options(self) -> dict[str, Any]:
        """Return the options as plain values, for adapters and records."""
        return dataclasses.asdict(self)


def published(parts: Parts) -> Parts:
    """Return the same parts without an identity start: gates of scale 1 and no layers of zeros.

    Use it for attention that follows a layer of zeros.
    """
    return {name: _published(part) for name, part in parts.items()}


def arranged(mechanism: Mechanism, kept: Map, other: Map) -> tuple[Map, Map]:
    """Return the two maps in the order of `forward`; the output has the height and width of the first one here."""
    return (kept, other) if mechanism.keeps == "x" else (other, kept)


def kept(mechanism: Mechanism, maps: Sequence[Map]) -> Map:
    """Return that one of the maps, in the order of `forward`, whose height and width the output has."""
    return maps[0 if mechanism.keeps == "x" else -1]


def output_shape(mechanism: Mechanism, shapes: Sequence[Sequence[int | None]], axis: int = 1) -> tuple[int | None, ...]:
    """Return the shape of the output for maps of these shapes, where None is unknown and `axis` that of channels."""
    shape = list(kept(mechanism, shapes))
    for part in mechanism.parts(shapes[0][axis] or 0).values():
        if isinstance(part, Replace):
            shape = [size and size // part.stride for size in shape]
            shape[0], shape[axis] = shapes[0][0], part.outputs
    return tuple(shape)


def layout(rank: int, channels: int | str = "C") -> str:
    """Return the axes of a map of so many axes: (N, C, L), (N, C, H, W) or (N, C, D, H, W)."""
    return f"(N, {channels}, {({3: 'L', 5: 'D, H, W'}).get(rank, 'H, W')})"


def as_2d(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape (N, C, H, W) that a map of any rank has in `Mechanism.forward`: axes joined, or one added."""
    return (*shape[:3], math.prod(shape[3:]))


def check_identity(mechanism: Mechanism, parts: Parts) -> None:
    """Raise UsageError where the mechanism has no identity start."""
    if mechanism.no_identity:
        raise UsageError(
            expected="a mechanism with an identity start",
            received=f"{mechanism}, which has none: {mechanism.no_identity}",
            do='pass start="paper"',
        )
    flattened = flat(parts).values()
    for part in flattened:
        if isinstance(part, Replace) and (part.inputs != part.outputs or part.stride > 1):
            raise UsageError(
                expected="an output of the shape of the input, for the identity start",
                received=f"{part.inputs} channels in, {part.outputs} out{' at half the size' * (part.stride > 1)}",
                do=f'pass start="paper", or leave {"stride" if part.stride > 1 else "out_channels"} out',
            )
        if isinstance(part, Gate) and not part.at_zero and not part.published:
            raise UsageError(
                expected="a gate that some factor makes 1 where the layers before it are 0, for the identity start",
                received=f"{mechanism}, whose {part.kind} gate is 0 there",
                do='pass start="paper"',
            )
    if not any(getattr(part, "last", False) for part in flattened):
        raise UsageError(
            expected="a mechanism with a layer that begins with weights of 0, for the identity start",
            received=f"{mechanism}, whose parts mark none as last=True",
            do='mark the last layer before each gate, or pass start="paper"',
        )


def first_of(mechanism: Mechanism, channels: int) -> tuple[str, ...]:
    """Return the path of the first layer whose weights fix the map's channels; () if any number of channels works."""
    with warnings.catch_warnings(action="ignore", category=ReductionWarning):
        here, there = flat(mechanism.parts(channels)), flat(mechanism.parts(2 * channels))
    for path, part in here.items():
        if (_width(part), _width(there[path])) == (channels, 2 * channels):
            return tuple(path.split("."))
    return ()


def _width(part: Part) -> int | None:
    """Return the channels that a layer takes; None for one that takes any."""
    match part:
        case Conv():
            return part.inputs
        case Norm():
            return part.channels
        case Scale():
            return part.size
        case _:
            return None


def _is_planar(part: Part) -> bool:
    if isinstance(part, Conv):
        return max(part.size) > 1 or part.stride > 1
    return isinstance(part, Constant) or (isinstance(part, Gate) and part.kind in ("row", "column"))


def _published(part: "Part | Parts") -> "Part | Parts":
    if isinstance(part, Mapping):
        return published(part)
    if isinstance(part, Gate):
        return dataclasses.replace(part, published=True)
    return dataclasses.replace(part, last=False) if isinstance(part, Conv | ChannelConv | Norm | Scale) else part


def hidden_units(channels: int, reduction: float, floor: int = 0, least: int = 1) -> int:
    """Return C // r, or int(C * r) for a ratio r between 0 and 1; at least `floor`, and at least `least`.

    Warns with `ReductionWarning` when they are fewer than `least`: the published code then has a constant gate or
    fails.
    """
    units = max(int(channels * reduction) if 0 < reduction < 1 else int(channels // reduction), floor)
    if units < least:
        left = "too few hidden units" if units else "no hidden unit"
        warnings.warn(
            f"reduction {reduction} leaves {left} for {channels} channels; using {least}",
            ReductionWarning,
            stacklevel=2,
        )
    return max(units, least)
