"""Draw the structure of a mechanism as an SVG: its forward runs on shapes, and every operation and part is a box."""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from types import SimpleNamespace
from typing import Any

from foveate import parts
from foveate.cost import CostParts, Meter, Shape
from foveate.ops import Ops
from foveate.spec import Mechanism

SIZE = (256, 56, 56)
HIDDEN = {"swap", "transpose", "to_sequence", "from_sequence"}  # they only rename axes
AXES = {Meter.c: "C", Meter.h: "H", Meter.w: "W", Meter.hw: "H, W"}
WIDE, HIGH, ACROSS, DOWN, AIR = 148, 38, 18, 26, 10


@dataclass(eq=False)
class Box:
    """One box: its text, the shape it returns, the boxes it reads, and its layer from the top."""

    text: str
    shape: str
    role: str
    reads: list["Box"]
    layer: int = 0
    x: float = 0.0


@dataclass
class Sheet:
    """The boxes of one mechanism in the order in which they ran."""

    boxes: list[Box] = field(default_factory=list)

    def add(self, text: str, shape: str, role: str, reads: Sequence[Box]) -> Box:
        """Add a box below all boxes that it reads."""
        box = Box(text, shape, role, list(reads), 1 + max((one.layer for one in reads), default=-1))
        self.boxes.append(box)
        return box


class Traced:
    """A shape, and the box that it comes from."""

    def __init__(self, shape: Shape, box: Box, sheet: Sheet):
        self.shape, self.box, self.sheet = shape, box, sheet

    def _with(self, sign: str, other: Any, turned: bool = False) -> "Traced":
        traced = isinstance(other, Traced)
        shape = self.shape + (other.shape if traced else 1.0)
        number = "" if traced else f" {other:g}"
        text = f"{other:g} {sign} ·" if turned and not traced else f"{sign}{number}"
        reads = [self.box, *([other.box] if traced and other.box is not self.box else [])]
        return Traced(shape, self.sheet.add(text, written(shape), "operation", reads), self.sheet)

    def __add__(self, other: Any) -> "Traced":
        return self._with("+", other)

    def __sub__(self, other: Any) -> "Traced":
        return self._with("−", other)

    def __mul__(self, other: Any) -> "Traced":
        return self._with("×", other)

    def __truediv__(self, other: Any) -> "Traced":
        return self._with("÷", other)

    def __rsub__(self, other: Any) -> "Traced":
        return self._with("−", other, turned=True)

    def __pow__(self, exponent: int) -> "Traced":
        shape = self.shape**exponent
        return Traced(shape, self.sheet.add(f"power {exponent}", written(shape), "operation", [self.box]), self.sheet)

    def __neg__(self) -> "Traced":
        return self._with("×", -1.0)

    __radd__, __rmul__ = __add__, __mul__


def drawn(name: str) -> Callable[..., Any]:
    """Return an operation of the vocabulary that computes the shape by the cost's and adds a box."""

    def operation(self: Any, *args: Any, **options: Any) -> Any:
        bare = functools.partial(_map, lambda one: one.shape)
        result = getattr(self.meter, name)(*bare(args), **options)
        read: list[Traced] = []
        _map(read.append, args)
        if name == "size":
            return result
        if name in HIDDEN:
            return Traced(result, read[0].box, self.sheet)
        over = [AXES[one] for one in args if type(one) is tuple and one in AXES]
        text = " over ".join([name.replace("_", " "), *over])
        box = self.sheet.add(text, written(result), "operation", list(dict.fromkeys(one.box for one in read)))
        return _map(lambda shape: Traced(shape, box, self.sheet), result)

    return operation


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply a function to every array among the arguments or results."""
    if isinstance(value, Traced | Shape):
        return function(value)
    if isinstance(value, list) or type(value) is tuple:
        return type(value)(_map(function, one) for one in value)
    return value


def tracer(meter: Meter, sheet: Sheet) -> Ops[Any]:
    """Return the vocabulary over traced shapes."""
    axes = {"c": Meter.c, "h": Meter.h, "w": Meter.w, "hw": Meter.hw}
    methods = {name: drawn(name) for name in Ops.__abstractmethods__}
    methods["weight"] = lambda self, norm: norm.weight()
    methods["apply"] = lambda self, mechanism, p, *xs: mechanism.forward(self, p, *xs)
    return type("Tracer", (Ops,), {**methods, **axes, "meter": meter, "sheet": sheet})()


class DrawnParts(CostParts):
    """The parts over traced shapes; every call adds a box."""

    def __init__(self, meter: Meter, sheet: Sheet):
        super().__init__(meter, "paper")
        self.sheet = sheet

    def layer(self, part: "parts.Part | parts.Parts", path: str) -> Any:
        """Return the layer of a part, which adds a box when it is called."""
        made = super().layer(part, path)
        if isinstance(made, SimpleNamespace):
            return made

        ran: list[Box] = []

        def call(*xs: Traced) -> Traced:
            shape = made(*(x.shape for x in xs))
            role = "gate" if isinstance(part, parts.Gate) else "part"
            name = path.rpartition(".")[2].replace("_", " ")
            text = name if kind(part) == name else f"{name}: {kind(part)}"
            ran.append(self.sheet.add(text, written(shape), role, [x.box for x in xs]))
            return Traced(shape, ran[-1], self.sheet)

        def weights() -> Traced:
            box = self.sheet.add("weights of the norm", written(made.weight), "operation", ran[-1:])
            return Traced(made.weight, box, self.sheet)

        return parts.Norms(call, weights) if isinstance(made, parts.Norms) else call


def kind(part: Any) -> str:
    """Return what a part is, in a few words."""
    match part:
        case parts.Conv():
            shared = f", {part.groups} groups" if 1 < part.groups < part.outputs else ""
            deep = "depthwise " if 1 < part.groups == part.outputs else ""
            return f"{deep}conv {part.size[0]}×{part.size[1]}{shared}"
        case parts.ChannelConv():
            return f"conv along C, {part.kernel}"
        case parts.Norm():
            return f"{part.kind} norm"
        case parts.Gate():
            return part.activation.replace("_", " ")
        case _:
            return type(part).__name__.lower()


def written(shape: Any) -> str:
    """Write the shape of one sample, C × H × W, or those of several."""
    if isinstance(shape, Shape):
        return " × ".join(map(str, shape.shape[1:]))
    return ", ".join(map(written, shape)) if isinstance(shape, list | tuple) else ""


def trace(mechanism: Mechanism) -> list[Box]:
    """Run the mechanism on the shape of one map and return its boxes, the first for x and the last for y."""
    sheet, meter = Sheet(), Meter()
    layers = DrawnParts(meter, sheet)
    with warnings.catch_warnings(action="ignore"):
        holder = layers.group(mechanism.parts(SIZE[0]))
    x = Shape((1, *SIZE), meter)
    inputs = [Traced(x, sheet.add("x", written(x), "end", []), sheet)]
    if (context := mechanism.options().get("context_channels")) is not None:
        coarse = Shape((1, context, SIZE[1] // 2, SIZE[2] // 2), meter)
        inputs.append(Traced(coarse, sheet.add("context", written(coarse), "end", []), sheet))
    y = mechanism.forward(tracer(meter, sheet), holder, *inputs)
    sheet.add("y", written(y.shape), "end", [y.box])
    return sheet.boxes


def svg(mechanism: Mechanism) -> str:
    """Return the picture of a mechanism, in the colours of the page."""
    boxes = trace(mechanism)
    rows = arranged(boxes)
    width = max(sum(WIDE if box.text else AIR for box in row) + ACROSS * (len(row) - 1) for row in rows) + 2 * AIR
    left = min(box.x for row in rows for box in row) - WIDE / 2 - AIR
    width = max(width, max(box.x for row in rows for box in row) + WIDE / 2 + AIR - left)
    height = len(rows) * (HIGH + DOWN) - DOWN + 2 * AIR
    lines = [line(one, box, left) for row in rows for box in row for one in box.reads]
    shapes = [rectangle(box, left) for box in boxes]
    label = escape(f"The structure of {type(mechanism).__name__}, from x at the top to y at the bottom")
    return (
        f'<svg class="structure" role="img" aria-label="{label}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="max-width: {width:.0f}px" xmlns="http://www.w3.org/2000/svg">{"".join(lines + shapes)}</svg>'
    )


def arranged(boxes: Sequence[Box]) -> list[list[Box]]:
    """Return the rows of the picture with the places of their boxes.

    A line that crosses rows has an empty box in each, so that it keeps clear of the others.
    """
    rows: list[list[Box]] = [[] for _ in range(1 + max(box.layer for box in boxes))]
    for box in boxes:
        rows[box.layer].append(box)
        box.reads = [through(one, box.layer, rows) for one in box.reads]
    for row in rows:
        spread(row, [0.0] * len(row))
    for _ in range(12):
        for row in rows[1:]:
            settle(row, {box: [one.x for one in box.reads] for box in row})
        below: dict[Box, list[float]] = {}
        for row in reversed(rows):
            settle(row, below)
            below = {}
            for box in row:
                for one in box.reads:
                    below.setdefault(one, []).append(box.x)
    return rows


def through(box: Box, layer: int, rows: list[list[Box]]) -> Box:
    """Return the last of the empty boxes that lead from a box to the row above `layer`."""
    for row in range(box.layer + 1, layer):
        known = next((one for one in rows[row] if not one.text and one.reads == [box]), None)
        if known is None:
            known = Box("", "", "way", [box], row)
            rows[row].append(known)
        box = known
    return box


def settle(row: list[Box], wanted: "dict[Box, list[float]]") -> None:
    """Move the boxes of a row towards the middle of those that they are joined to."""
    targets = {box: sum(xs) / len(xs) if (xs := wanted.get(box)) else box.x for box in row}
    row.sort(key=lambda box: targets[box])
    spread(row, [targets[box] for box in row])


def spread(row: list[Box], targets: Sequence[float]) -> None:
    """Place boxes at their targets, moved apart where they would overlap."""
    edge = float("-inf")
    for box, target in zip(row, targets, strict=True):
        half = (WIDE if box.text else AIR) / 2
        box.x = max(target, edge + half)
        edge = box.x + half + ACROSS
    shift = sum(target - box.x for box, target in zip(row, targets, strict=True)) / len(row)
    for box in row:
        box.x += shift


def line(above: Box, below: Box, left: float) -> str:
    """Draw a line from one box to the next row."""
    top, bottom = AIR + above.layer * (HIGH + DOWN) + (HIGH if above.text else 0), AIR + below.layer * (HIGH + DOWN)
    if not above.text:
        top += HIGH / 2
    bottom += 0 if below.text else HIGH / 2
    start, end, middle = above.x - left, below.x - left, (top + bottom) / 2
    return (
        f'<path class="way" d="M{start:.1f} {top:.1f}C{start:.1f} {middle:.1f} {end:.1f} {middle:.1f} '
        f'{end:.1f} {bottom:.1f}"/>'
    )


def rectangle(box: Box, left: float) -> str:
    """Draw a box with its text and its shape."""
    x, y = box.x - left, AIR + box.layer * (HIGH + DOWN)
    return (
        f'<g class="{box.role}"><rect x="{x - WIDE / 2:.1f}" y="{y}" width="{WIDE}" height="{HIGH}" rx="6"/>'
        f'<text x="{x:.1f}" y="{y + 16}">{escape(box.text)}</text>'
        f'<text class="shape" x="{x:.1f}" y="{y + 30}">{escape(box.shape)}</text></g>'
    )
