"""The preset "stage": the last map of each resolution, of the encoder and of the decoder."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from foveate.surgery.core.flow import Flow
from foveate.surgery.core.resolutions import Halvings
from foveate.surgery.core.trace import Call, Trace


@dataclass(frozen=True, eq=False)
class Stage:
    """The maps of one resolution in the encoder or in the decoder, in the order in which they are made.

    `onward` are the values that lead out of the stage. `passed` are the maps on every path through the stage: all its
    earlier maps lead to them, and all its later maps come from them.
    """

    flow: Flow
    maps: list[int]
    onward: frozenset[int]
    passed: list[int]

    def ends(self, blocks: list[Call], calls: list[Call]) -> list[str]:
        """Name the module that makes the last map: the last block, else the last module with a convolution.

        Of several modules with a convolution it is the last whose map a head or the decoder reads, where there is one.
        Where no block and no module makes a map on every path, as in two encoders side by side, these are the last ones
        of each. At last it is the module before the last sum, which no module makes.
        """
        if name := self._maker(blocks, reversed(self.passed)):
            return [name]
        if name := self._maker(calls, [*reversed(self._read_elsewhere()), *reversed(self.passed)]):
            return [name]
        for modules in (blocks, calls):
            if names := self._ends_side_by_side(modules):
                return names
        before = self.flow.ancestors(*self.passed[-1:])
        name = self._maker(calls, (index for index in reversed(self.maps) if index in before))
        return [name] if name else []

    def _read_elsewhere(self) -> list[int]:
        """Return the passed maps, made by layers of this stage, that a head or the decoder reads too."""
        flow, values = self.flow, self.flow.trace.values
        read = {parent for index in flow.used - self.onward for parent in flow.parents[index]}
        before = values[self.maps[0]].depth - flow.learns(self.maps[0])
        return [index for index in self.passed if index in read and values[index].depth > before]

    def _ends_side_by_side(self, calls: list[Call]) -> list[str]:
        """Name the modules that make the last map of each of several ways through the stage; nothing for one way."""
        before = self.flow.ancestors(*self.passed[-1:]) if self.passed else frozenset(self.maps)
        made = [index for index in self.maps if index in before and self._maker(calls, [index])]
        ends = list[int]()
        for index in reversed(made):
            if not any(index in self.flow.ancestors(end) for end in ends) and self._is_alone(index):
                ends.append(index)
        names = [self._maker(calls, [index]) for index in reversed(ends)]
        return [name for name in names if name] if len(ends) > 1 else []

    def _is_alone(self, end: int) -> bool:
        """Return whether the stage's maps before this one lead out of the stage only through it."""
        before = self.flow.ancestors(end)
        inside = {index for index in before if not self.flow.ancestors(index).isdisjoint(self.maps)} - {end}
        return not any(not inside.isdisjoint(self.flow.parents[index]) for index in self.onward - before)

    def _maker(self, calls: list[Call], indices: Iterable[int]) -> str | None:
        return next((name for index in indices for name in modules_that_make(calls, index, set(self.maps))), None)


def stage(trace: Trace) -> list[str]:
    """Name the end of each resolution, once for the encoder and once for the decoder, in the order in which they run.

    The end is the last block whose output all later maps of that resolution come from. A block is a module with
    children and with two or more convolutions inside, that is an element of a container or of a class used at least
    twice. Where a resolution has no block (VGG, DenseNet), the end is the last module with a convolution. The stem (the
    convolutions before the first block, or one before all others), gates, and what makes the predictions are left out.
    """
    flow = Flow(trace)
    encoder, decoder = _encoder_and_decoder(flow)
    blocks, calls = _blocks(trace), _at_one_size(trace)
    ends = [(stage, stage.ends(blocks, [])) for stage in encoder]
    without = _without_stem(flow, encoder, next((stage for stage, names in ends if names), None))
    ends = [(stage, names or (stage.ends([], calls) if stage in without else [])) for stage, names in ends]
    ends += [(stage, stage.ends(blocks, calls)) for stage in decoder]
    in_order = sorted(ends, key=lambda end: end[0].maps[0])
    return list(dict.fromkeys(name for _, names in in_order for name in names))


def _encoder_and_decoder(flow: Flow) -> tuple[list[Stage], list[Stage]]:
    """Return the stages of the encoder and those of the decoder.

    The encoder ends at the smallest map that the decoder begins with. What leaves it before, such as the lateral
    convolution of a feature pyramid, belongs to the decoder; pooled maps of a size of their own (PSPNet) to neither.
    """
    maps, rising = flow.maps, flow.rising
    falling = {index for index in maps if index not in rising}
    first = next((index for index in maps if index in rising), None)
    bottom = falling if first is None else flow.ancestors(first) & falling
    most = max(map(flow.halvings, bottom), default=0)
    lowest = {index for index in bottom if flow.halvings(index) == most}
    onward = flow.ancestors(*lowest)
    above = {index for index in onward & falling if flow.halvings(index) < most}
    down = _by_resolution(flow, [index for index in maps if index in lowest | above])
    up = _by_resolution(flow, [index for index in maps if index not in lowest | above])
    decoder = []
    for resolution, level in up.items():
        inside = flow.ancestors(*level)
        passed = _on_every_path(flow, level, inside)
        if not rising.isdisjoint(level):
            decoder.append(Stage(flow, level, inside, passed or level[-1:]))
        elif resolution in down and passed:
            decoder.append(Stage(flow, level, inside, passed))
    return [Stage(flow, level, onward, _on_every_path(flow, level, onward)) for level in down.values()], decoder


def _by_resolution(flow: Flow, maps: list[int]) -> dict[Halvings, list[int]]:
    found: dict[Halvings, list[int]] = {}
    for index in maps:
        found.setdefault(flow.resolution(index), []).append(index)
    return found


def _on_every_path(flow: Flow, maps: list[int], onward: frozenset[int]) -> list[int]:
    """Return the maps of a stage that all its earlier maps lead to and all its later maps come from.

    No path from an earlier value to one of `onward` goes around such a map.
    """
    last_use = {parent: index for index in sorted(onward) for parent in flow.parents[index]}
    values, found, reach = flow.trace.values, [], 0
    for index in sorted(onward.union(maps)):
        if index in maps and reach <= index:
            earlier, later = (other for other in maps if other < index), (other for other in maps if other > index)
            if all(values[index].ancestors >> other & 1 for other in earlier) and all(
                values[other].ancestors >> index & 1 for other in later
            ):
                found.append(index)
        reach = max(reach, last_use.get(index, 0))
    return found


def _without_stem(flow: Flow, stages: list[Stage], with_blocks: Stage | None) -> list[Stage]:
    """Leave out the stem, and stages of one position or without a convolution of their own.

    The stem is a first stage of one convolution; where blocks follow, it is all before them if the first convolution
    has a stride.
    """
    values, found, before = flow.trace.values, [], 0
    after = (index for stage in stages for index in stage.maps if values[index].depth)
    in_stem = with_blocks is not None and any(flow.halvings(index) > 0 for index in [*after][:1])
    for stage in stages:
        in_stem &= stage is not with_blocks
        depth = values[stage.maps[-1]].depth
        if depth - before > (before == 0) and flow.area(stage.maps[0]) > 1 and not in_stem:
            found.append(stage)
        before = depth
    return found


def modules_that_make(calls: Iterable[Call], index: int, wanted: set[int]) -> list[str]:
    """Name the modules that a child can be given to and that output the value: the innermost that made it first.

    Modules that also output something which is not wanted, such as one ReLU used all over a block, are left out.
    """
    calls = list(calls)
    elsewhere = {call.name for call in calls if call.value not in wanted}
    able = [
        call
        for call in calls
        if call.value == index and call.name and call.name not in elsewhere and not call.container
    ]
    return [call.name for call in sorted(able, key=lambda call: call.passed_through)]


def _blocks(trace: Trace) -> list[Call]:
    """Return the calls of the modules that are blocks."""
    last = {call.name: call for call in trace.calls if call.name}
    classes = Counter(call.kind for call in last.values())
    names = {
        name
        for name, call in last.items()
        if call.convolutions > 1 and call.parent and (classes[call.kind] > 1 or call.element)
    }
    return [call for call in trace.calls if call.name in names]


def _at_one_size(trace: Trace) -> list[Call]:
    """Return the calls of the modules that run at one resolution: not those of a head that all levels share."""
    sizes: dict[str, set[tuple[int, ...]]] = {}
    for call in trace.calls:
        sizes.setdefault(call.name, set()).add((call.shape or ())[2:])
    return [call for call in trace.calls if len(sizes[call.name]) == 1]
