"""The preset "stage": the last map of each resolution, of the encoder and of the decoder."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from foveate.surgery.core.flow import Flow
from foveate.surgery.core.trace import Call, Trace


@dataclass(frozen=True)
class Level:
    """The maps of one resolution on one side, in order, and those of them that no way around leads past."""

    maps: list[int]
    common: list[int]

    def end(self, calls: list[Call]) -> str | None:
        """Return the last module that makes a common map."""
        return self._maker(calls, reversed(self.common))

    def entering(self, flow: Flow, calls: list[Call]) -> str | None:
        """Return the last module that enters the last common map, such as a sum that no module makes."""
        before = flow.ancestors(self.common[-1])
        return self._maker(calls, (index for index in reversed(self.maps) if index in before))

    def _maker(self, calls: list[Call], indices: Iterable[int]) -> str | None:
        return next((name for index in indices for name in makers(calls, index, set(self.maps))), None)


def stage(trace: Trace) -> list[str]:
    """Name the end of each resolution, once for the encoder and once for the decoder, in the order in which they run.

    The end is the last block whose output all later maps of that level come from. A block is a module with children and
    with two or more convolutions inside, that is an element of a container or of a class used at least twice. Where the
    encoder has no blocks (VGG, DenseNet), and on each level of a decoder without one, the end is the last module with a
    convolution. The stem (one convolution before all others), gates, and what makes the predictions are left out.
    """
    flow = Flow(trace)
    down, up = _levels(flow)
    blocks, calls = _blocks(trace), _at_one_size(trace)
    ends = [(level, level.end(blocks)) for level in down]
    if not any(name for _, name in ends):
        ends = [(level, level.end(calls)) for level in _without_stem(flow, down)]
    ends += [(level, level.end(blocks) or level.end(calls) or level.entering(flow, calls)) for level in up]
    in_order = sorted(ends, key=lambda end: end[0].maps[0])
    return list(dict.fromkeys(name for _, name in in_order if name is not None))


def _levels(flow: Flow) -> tuple[list[Level], list[Level]]:
    """Return the levels on the way down, and those on the way up.

    The way down ends at the smallest map that the way up begins with. What leaves it before, such as the lateral
    convolution of a feature pyramid, belongs to the way up; pooled maps of a size of their own (PSPNet) to neither.
    """
    maps, rising = flow.maps, flow.rising
    falling = {index for index in maps if index not in rising}
    first = next((index for index in maps if index in rising), None)
    bottom = falling if first is None else flow.ancestors(first) & falling
    smallest = min((flow.area(index) for index in bottom), default=0)
    lowest = {index for index in bottom if flow.area(index) == smallest}
    onward = flow.ancestors(*lowest)
    above = {index for index in onward & falling if flow.area(index) > smallest}
    down = _by_area(flow, [index for index in maps if index in lowest | above])
    up = _by_area(flow, [index for index in maps if index not in lowest | above])
    levels = []
    for area, level in up.items():
        common = _common(flow, level, flow.ancestors(*level))
        if not rising.isdisjoint(level):
            levels.append(Level(level, common or level[-1:]))
        elif area in down and common:
            levels.append(Level(level, common))
    return [Level(level, _common(flow, level, onward)) for level in down.values()], levels


def _by_area(flow: Flow, maps: list[int]) -> dict[int, list[int]]:
    levels: dict[int, list[int]] = {}
    for index in maps:
        levels.setdefault(flow.area(index), []).append(index)
    return levels


def _common(flow: Flow, level: list[int], onward: frozenset[int]) -> list[int]:
    """Return the maps of a level that all its earlier maps lead to and all its later maps come from.

    No path from an earlier value to one of `onward` goes around such a map.
    """
    last_use = {parent: index for index in sorted(onward) for parent in flow.parents[index]}
    values, found, reach = flow.trace.values, [], 0
    for index in sorted(onward.union(level)):
        if index in level and reach <= index:
            earlier, later = (other for other in level if other < index), (other for other in level if other > index)
            if all(values[index].ancestors >> other & 1 for other in earlier) and all(
                values[other].ancestors >> index & 1 for other in later
            ):
                found.append(index)
        reach = max(reach, last_use.get(index, 0))
    return found


def _without_stem(flow: Flow, levels: list[Level]) -> list[Level]:
    """Leave out the levels of one position or without a convolution of their own, and a first one that has only one."""
    values, found, before = flow.trace.values, [], 0
    for level in levels:
        depth = values[level.maps[-1]].depth
        if depth - before > (before == 0) and flow.area(level.maps[0]) > 1:
            found.append(level)
        before = depth
    return found


def makers(calls: Iterable[Call], index: int, wanted: set[int]) -> list[str]:
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
