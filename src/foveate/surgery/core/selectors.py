"""Select the parts of a model that `where` names, from the trace of a run; for both frameworks."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from foveate.errors import UsageError
from foveate.site_names import MARK, parted
from foveate.surgery.core import presets
from foveate.surgery.core.inputs import Inputs, arguments
from foveate.surgery.core.presets import PRESETS
from foveate.surgery.core.trace import Call, Trace

Predicate: TypeAlias = Callable[[str, Any, tuple[int, ...]], bool]
Where: TypeAlias = "str | type[Any] | Predicate | Sequence[Where]"
_LINEAR_LAYERS = 4  # more than a small convolutional network has at its end


@dataclass(frozen=True)
class Selector:
    """The parts of a model by name: torch modules ("layer4.0.bn2") or Keras layers ("resnet50/conv5_block3_out").

    `base` is the class of all parts, `noun` the word for one part. `idle` names parts that cannot be sites, such as
    containers. `aliases` maps further names of parts to their names in `parts`.
    """

    trace: Trace
    parts: Mapping[str, Any]
    base: type
    noun: str
    separator: str
    idle: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def choose(self, where: Where) -> list[Call]:
        """Return the first call of every site that `where` selects, in running order.

        A container is replaced by the module inside it that made the same output tensor. Raises UsageError when nothing
        is selected, or a selected output is not (N, C, H, W), or such a map of 1-D or 3-D, with one C at every call.
        """
        return self.sites(map(self._stand_in, self.select(where)))

    def sites(self, names: Iterable[str]) -> list[Call]:
        """Return the first call of the sites of these names, in running order. Raises UsageError as `choose`."""
        names = dict.fromkeys(names)
        for name in names:
            self.check_maps(name, self.calls_of(name))
        return sorted((self.calls_of(name)[0] for name in names), key=lambda call: call.time)

    def calls_of(self, name: str) -> list[Call]:
        """Return the calls of a module or layer, or of its argument where that was given, in running order."""
        return [call for call in self.trace.calls if call.name == name] or arguments(self.trace, name)

    def can_be_site(self, name: str) -> bool:
        """Return whether a part outputs a map, or is called with one, and is no container."""
        return parted(name)[0] not in self.idle and any(self._is_map(call.shape) for call in self.calls_of(name))

    def part(self, name: str) -> Any:
        """Return the part that a site belongs to."""
        return self.parts[parted(name)[0]]

    def select(self, where: Any) -> list[str]:
        """Return the names that a preset, a pattern, a type, a predicate or a list of these selects.

        Raises UsageError where nothing is selected.
        """
        if isinstance(where, str):
            return self._preset(where) if where in PRESETS else self._pattern(where)
        if isinstance(where, Sequence) and where:
            return [name for each in where for name in self.select(each)]
        if isinstance(where, type) and issubclass(where, self.base):
            chosen, what = (
                [name for name in self._called() if isinstance(self.parts[name], where)],
                f"the type {where.__name__}",
            )
        elif callable(where) and not isinstance(where, type):
            shapes = {call.name: call.shape for call in self.trace.calls if self._is_map(call.shape)}
            chosen = [name for name in self._called() if name in shapes and where(name, self.parts[name], shapes[name])]
            what = "the predicate"
        else:
            raise UsageError(
                expected=f"where as a preset, a name pattern, a {self.noun} type, a predicate, or a list of these",
                received=repr(where),
                do=f"use one of {', '.join(map(repr, PRESETS))}, or {self.examples()}",
            )
        if not chosen:
            raise UsageError(
                expected=f"where to select at least one {self.noun} that runs",
                received=f"{what}, which selects none",
                do=f"use where={self.examples()}",
            )
        return chosen

    def check_maps(self, name: str, calls: Sequence[Call]) -> None:
        """Raise UsageError unless every call of a site returns one feature map, with one number of channels."""
        shapes = [call.shape for call in calls]
        axes = {self.trace.values[call.value].axis for call in calls if call.value is not None}
        odd = [shape for shape in shapes if not (self._is_map(shape) or (1 in axes and shape and 3 <= len(shape) <= 5))]
        if odd or axes - {None, 1}:
            shape = odd[0] if odd else shapes[0]
            received = "an output that is not one tensor" if shape is None else f"a tensor of shape {shape}"
            place = "its last axis" if shape and len(shape) - 1 in axes else "its third axis"
            what, gives = ("argument", "is called with") if parted(name)[1] else ("output", "outputs")
            raise UsageError(
                expected=f"the {what} of {name!r} as one tensor {self.trace.layout}",
                received=f"{received}, with the channels in {place}" if axes - {None, 1} else received,
                do=f"choose a {self.noun} that {gives} a feature map {self.trace.layout}, in a convolutional network",
            )
        channels = {shape[1] for shape in shapes if shape is not None}
        if len(channels) > 1:
            raise UsageError(
                expected=f"one channel count at every call of {name!r}",
                received=f"{len(shapes)} calls with {' and '.join(map(str, sorted(channels)))} channels",
                do=f"choose {self.noun}s with one channel count: one attention serves all calls of a {self.noun}",
            )

    def examples(self, near: str = "") -> str:
        """Name a few parts of this model that can be sites, those closest to `near` first."""
        able = [call.name for call in self.trace.calls if call.name and self._is_map(call.shape)]
        able = list(dict.fromkeys(name for name in able if name not in self.idle))
        close = difflib.get_close_matches(near, able, 3, cutoff=0.4) if near else []
        names = close or presets.stage(self.trace)[-3:] or able[-3:]
        return (
            " or ".join(map(repr, names))
            or f"the name of a {self.noun} that outputs {self.trace.layout}; this model has none"
        )

    def _stand_in(self, name: str) -> str:
        """Return the site, or for a container the module inside it that made the same output tensor.

        Raises UsageError where there is no such module.
        """
        module, argument = parted(name)
        if module not in self.idle:
            return name
        if argument:
            return self._inputs.stand_in(name, self.idle)
        outputs = {call.value for call in self.trace.calls if call.name == name}
        elsewhere = {call.name for call in self.trace.calls if call.value not in outputs}
        inside = [
            call for call in self.trace.calls if call.value in outputs and call.name.startswith(name + self.separator)
        ]
        able = [
            call
            for call in inside
            if call.value is not None and call.name not in elsewhere and call.name not in self.idle
        ]
        if not able:
            raise UsageError(
                expected=f"a {self.noun} inside {name!r} that makes its output",
                received=f"a {type(self.parts[name]).__name__}, which would run attention as one of its own children",
                do=f"choose a {self.noun} inside or after it: {self.examples(name)}",
            )
        made = [call for call in able if not call.passed_through]
        return made[-1].name if made else able[0].name

    def _is_map(self, shape: tuple[int, ...] | None) -> bool:
        return shape is not None and len(shape) == self.trace.rank

    @property
    def _inputs(self) -> Inputs:
        return Inputs(self.trace, self.noun, self.separator)

    def _called(self) -> list[str]:
        return list(dict.fromkeys(call.name for call in self.trace.calls if call.name))

    def _preset(self, where: str) -> list[str]:
        self._require_convolutions(where)
        if where == "skip":
            self._require_arguments(where)
        if chosen := PRESETS[where](self.trace):
            return chosen
        others = [name for name in ("residual", "stage") if name != where and PRESETS[name](self.trace)]
        missing = {
            "residual": f"a residual addition of feature maps {self.trace.layout}",
            "stage": "sequences of blocks of one resolution",
            "skip": "skips: maps that a decoder joins with smaller ones that it enlarged",
        }[where]
        named = f"name {self.noun}s, such as where={self.examples()}"
        raise UsageError(
            expected=f"a model with {missing}, for where={where!r}",
            received="a model in which none was found",
            do=" or ".join([*(f"use where={name!r}" for name in others), named]),
        )

    def _require_arguments(self, where: str) -> None:
        """Raise UsageError for a host whose parts have attention on their outputs alone."""
        if not self.trace.arguments:
            raise UsageError(
                expected=f"where as the outputs of {self.noun}s, for this framework",
                received=f"{where!r}, which means what {self.noun}s are called with",
                do=f"put a {self.noun} that changes nothing on the skip, such as Activation('linear'), and name it; or "
                "use the model in PyTorch",
            )

    def _require_convolutions(self, where: str) -> None:
        """Raise UsageError for a preset on a model of linear layers with at most one convolution, such as a ViT."""
        kinds = [value.op for value in self.trace.values]
        if (
            kinds.count("convolution") <= 1
            and sum(kinds.count(kind) for kind in ("addmm", "mm", "linear")) >= _LINEAR_LAYERS
        ):
            raise UsageError(
                expected=f"a convolutional network, which where={where!r} is made for",
                received="a model with at most one convolution, such as a vision transformer",
                do=f"choose a convolutional network, or name {self.noun}s that output a feature map (N, C, H, W)",
            )

    def _pattern(self, where: str) -> list[str]:
        if MARK in where and not any(MARK in name for name in self.parts):
            self._require_arguments(where)
            pattern, argument = parted(where)
            return self._inputs.select(self.named(pattern), argument)
        return self.named(where)

    def named(self, where: str) -> list[str]:
        """Return the names of the parts that ran and that a pattern matches. Raises UsageError where there are none."""
        pattern, names = where.split(self.separator), {**{name: name for name in self._called()}, **self.aliases}
        if chosen := [name for alias, name in names.items() if _matches(pattern, alias.split(self.separator))]:
            return chosen
        idle = [name for name in self.parts if name and _matches(pattern, name.split(self.separator))]
        near = "".join(f"where={preset!r} or " for preset in difflib.get_close_matches(where, PRESETS, 1))
        raise UsageError(
            expected=f"where to match the name of a {self.noun} that runs",
            received=f"{where!r}, which matches "
            + (f"{idle[0]!r}, but the probe run did not call it" if idle else f"no {self.noun}"),
            do=f"use {near}where={self.examples(where)}",
        )


def _matches(pattern: list[str], name: list[str]) -> bool:
    """Return whether a name, split into parts, fits a pattern: `*` matches within one part, `**` matches several."""
    if not pattern or not name:
        return all(part == "**" for part in pattern) and not name
    if pattern[0] == "**":
        return _matches(pattern[1:], name) or _matches(pattern, name[1:])
    return fnmatchcase(name[0], pattern[0]) and _matches(pattern[1:], name[1:])
