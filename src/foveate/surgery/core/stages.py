"""The preset "stage": the last map of each resolution, of the encoder and of the decoder."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from foveate.surgery.core.flow import SUMS, Flow
from foveate.surgery.core.resolutions import Halvings
from foveate.surgery.core.trace import Call, Trace

JOINS = SUMS | {"cat"}


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
        What makes a sum that no module makes is its branch. Where no module makes a map on every path, it is the block
        that all the others lead to; or in two encoders side by side the last one of each. At last it is the module
        before the last sum.
        """
        if name := self._maker(blocks, reversed(self.passed)) or self._last(blocks):
            return [name]
        for index in (*reversed(self._read_elsewhere()), *reversed(self.passed)):
            if name := self._before(calls, index):
                return [name]
        for modules in (blocks, calls):
            if names := self._ends_side_by_side(modules):
                return names
        before = self.flow.ancestors(*self.passed[-1:])
        name = self._maker(calls, (index for index in reversed(self.maps) if index in before))
        return [name] if name else []

    def _last(self, blocks: list[Call]) -> str | None:
        """Name the block that all other blocks of the stage lead to."""
        made = [index for index in self.maps if self._maker(blocks, [index])]
        leads = made and self.flow.ancestors(made[-1]).issuperset(made)
        return self._maker(blocks, made[-1:]) if leads else None

    def _before(self, calls: list[Call], index: int) -> str | None:
        """Name the module that makes a map, or else what it is made of without layers: in a sum, the last term."""
        flow, values = self.flow, self.flow.trace.values
        while index in self.maps and index not in flow.passing and "pool" not in values[index].op:
            if name := self._maker(calls, [index]):
                return name
            same = [parent for parent in flow.parents[index] if values[parent].shape == values[index].shape]
            if flow.learns(index) or not same or len(flow.parents[index]) > max(1, len(flow.terms(index))):
                return None
            index = max(same, key=lambda parent: (values[parent].depth, parent))
        return None

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
    twice, or joins paths of its own. Where a resolution has no block (VGG, DenseNet), the end is the last module with a
    convolution. Where heads run at several resolutions, the decoder's ends are the maps that they read. The stem (the
    convolutions before the first block, or one before all others), gates, and what makes the predictions are left out.
    """
    flow = Flow(trace)
    levels, heads = _levels(flow)
    encoder, decoder = _encoder_and_decoder(flow, [index for index in flow.maps if index not in heads])
    decoder = [_level(flow, index) for index in levels] or decoder
    blocks, calls = _blocks(trace), _at_one_size(trace)
    ends = [(stage, stage.ends(blocks, [])) for stage in encoder]
    without = _without_stem(flow, encoder, next((stage for stage, names in ends if names), None))
    ends = [(stage, names or (stage.ends([], calls) if stage in without else [])) for stage, names in ends]
    ends += [(stage, stage.ends(blocks, calls)) for stage in decoder]
    found = {name for _, names in ends for name in names}
    return list(dict.fromkeys(call.name for call in trace.calls if call.name in found))


def _levels(flow: Flow) -> tuple[list[int], set[int]]:
    """Return the maps that heads read, each of which runs at several resolutions, and all values that heads make.

    A head is found by a convolution that reads several maps, none of which such a convolution has made.
    """
    values = flow.trace.values
    made = {call.name: set[int]() for call in flow.trace.calls}
    for call in flow.trace.calls:
        if call.value in flow.used and flow.learns(call.value) and flow.has_size(call.value):
            made[call.name].add(call.value)
    shared = [one for one in made.values() if len({values[index].shape for index in one}) > 1]
    levels, first = set[int](), set[int]()
    for one in shared:
        before = sum(1 << index for other in shared for index in other)
        read = {flow.parents[index][0] for index in one if not values[flow.parents[index][0]].ancestors & before}
        read = {index for index in read if values[index].depth and not before >> index & 1}
        if len(read) > 1:
            levels |= read
            first |= one
    mask = sum(1 << index for index in first)
    after = {index for index, value in enumerate(values) if value.ancestors & mask}
    return sorted(levels.intersection(flow.maps)), first | after


def _level(flow: Flow, level: int) -> Stage:
    """Return a map that heads read as a stage, with what it is made of without layers."""
    values = flow.trace.values
    same = (index for index in flow.ancestors(level) if values[index].shape == values[level].shape)
    maps = [index for index in sorted(same) if values[index].depth == values[level].depth]
    return Stage(flow, maps, flow.ancestors(level), [level])


def _encoder_and_decoder(flow: Flow, maps: list[int]) -> tuple[list[Stage], list[Stage]]:
    """Return the stages of the encoder and those of the decoder.

    The encoder ends at the smallest map that the decoder begins with. What leaves it before, such as the lateral
    convolution of a feature pyramid, belongs to the decoder; so do smaller maps, unless they are made larger again as
    pooled maps of a size of their own (PSPNet), which belong to neither.
    """
    rising = flow.rising
    falling = {index for index in maps if index not in rising}
    first = next((index for index in maps if index in rising), None)
    bottom = falling if first is None else flow.ancestors(first) & falling
    most = max(map(flow.halvings, bottom), default=0)
    lowest = {index for index in bottom if flow.halvings(index) == most}
    onward = flow.ancestors(*lowest)
    above = {index for index in onward & falling if flow.halvings(index) < most}
    down = _by_resolution(flow, [index for index in maps if index in lowest | above])
    up = _by_resolution(flow, [index for index in maps if index not in lowest | above])
    decoder, enlarged = [], flow.ancestors(*rising)
    for resolution, level in up.items():
        inside = flow.ancestors(*level)
        passed = _on_every_path(flow, level, inside)
        if not rising.isdisjoint(level):
            decoder.append(Stage(flow, level, inside, passed or level[-1:]))
        elif passed and (resolution in down or (enlarged.isdisjoint(level) and flow.area(level[0]) > 1)):
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
        if call.convolutions > 1 and call.parent and (classes[call.kind] > 1 or call.element or _joins(trace, call))
    }
    return [call for call in trace.calls if call.name in names and not _weighs(trace, call)]


def _weighs(trace: Trace, call: Call) -> bool:
    """Return whether a call multiplies a map that was made before it, as attention on a skip does."""
    value = None if call.value is None else trace.values[call.value]
    return value is not None and value.op == "mul" and any(parent < call.first for parent in value.parents)


def _joins(trace: Trace, call: Call) -> bool:
    """Return whether a call joins maps that it has made, all of one size."""
    inside = range(call.first, call.first if call.value is None else call.value + 1)
    values = [trace.values[index] for index in inside if len(trace.values[index].shape) == trace.rank]
    joins = any(
        value.op in JOINS and sum(parent in inside for parent in dict.fromkeys(value.parents)) > 1 for value in values
    )
    return joins and len({value.shape[2:] for value in values}) == 1


def _at_one_size(trace: Trace) -> list[Call]:
    """Return the calls of the modules that run at one resolution: not those of a head that all levels share."""
    sizes: dict[str, set[tuple[int, ...]]] = {}
    for call in trace.calls:
        sizes.setdefault(call.name, set()).add((call.shape or ())[2:])
    return [call for call in trace.calls if len(sizes[call.name]) == 1]
