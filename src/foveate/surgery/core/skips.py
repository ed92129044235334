"""The preset "skip": the maps that cross from the encoder to the decoder, where a module is called with them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from foveate.errors import UsageError, shortened
from foveate.site_names import parted, ranged, with_range
from foveate.surgery.core.flow import GLOBAL_POOLING, Flow
from foveate.surgery.core.trace import Call, Trace


@dataclass(frozen=True)
class Skip:
    """A map that is laid beside, or added to, a map that was made of it at a lower resolution and enlarged again.

    `source` is the last value that both were made of, `join` where they meet, `side` what the skip is there, `path` the
    values in between with both ends. `deep` are the values that the enlarged map was made of. `sites` are where
    attention acts on the skip alone.
    """

    source: int
    join: int
    side: int
    path: frozenset[int]
    deep: frozenset[int]
    sites: list[str] = field(default_factory=list)


def skip(trace: Trace, separator: str = ".") -> list[str]:
    """Name the sites on the skips, in the order in which they run; nothing where there are no skips.

    Raises UsageError where no module is called with a skip alone.
    """
    flow = Flow(trace)
    skips = _outermost(trace, list(_skips(flow)))
    for one in skips:
        one.sites.extend(_sites(trace, one))
    served = {one.source for one in skips if one.sites}
    if missing := [one for one in skips if one.source not in served]:
        raise _without_module(trace, missing, [site for one in skips for site in one.sites])
    chosen = {site for one in skips for site in one.sites}
    chosen |= _alike(flow, chosen, separator)
    order = {call.name: place for place, call in enumerate(trace.arguments)}
    return sorted(chosen, key=lambda site: order[site if site in order else ranged(site)[0]])


def _skips(flow: Flow) -> Iterable[Skip]:
    """Yield the skips in the order of their joins.

    A skip keeps the resolution on its way, which no way to the enlarged map does, and has at most half as many
    convolutions (unlike the parallel branches of HRNet). Means over all positions that are enlarged again (as in
    PSPNet) are no decoder.
    """
    values = flow.trace.values
    for join in sorted(flow.used):
        parents = flow.parents[join]
        enlarged = [parent for parent in parents if _is_enlarged(flow, parent)]
        if not enlarged or not ("cat" in values[join].op or flow.terms(join)):
            continue
        for side in parents:
            for large in set(enlarged) - {side}:
                beside, deep = flow.ancestors(side), flow.ancestors(large)
                source = max(beside & deep, default=-1)
                if source < 0 or not values[source].depth or len(values[source].shape) != flow.trace.rank:
                    continue
                size = flow.halvings(side)
                way = flow.way(source, side, lambda index, size=size: flow.halvings(index) <= size)
                keeps = flow.halvings(source) == size and bool(way)
                shrinks = not flow.way(source, large, lambda index, size=size: flow.halvings(index) <= size)
                learnt = flow.way(source, large, lambda index: not values[index].op.startswith(GLOBAL_POOLING))
                if not (keeps and shrinks and learnt):
                    continue
                if 2 * _longest(flow, way) <= _longest(flow, flow.way(source, large, lambda index: True)):
                    yield Skip(source, join, side, way | {join}, deep)


def _longest(flow: Flow, way: frozenset[int]) -> int:
    """Return the convolutions on the longest way from the first to the last of these values, without gates."""
    found: dict[int, int] = {}
    for index in sorted(way):
        before = [found[parent] for parent in flow.parents[index] if parent in found]
        found[index] = max(before) + flow.learns(index) if before else 0
    return found[max(way)]


def _is_enlarged(flow: Flow, index: int) -> bool:
    """Return whether a map, padded or not, has a smaller one among those that it was made of."""
    while "pad" in flow.trace.values[index].op and flow.parents[index]:
        index = flow.parents[index][0]
    return index in flow.rising


def _outermost(trace: Trace, skips: list[Skip]) -> list[Skip]:
    """Leave out the skips inside a module that itself is between others, such as a block that is a small U-Net."""
    around = [_around(trace, one) for one in skips]
    kept = []
    for one, inner in zip(skips, around, strict=True):
        outer = [call for call in around if call is not inner and call.first <= inner.first and inner.end <= call.end]
        outer = [call for call in outer if (call.first, call.end) != (inner.first, inner.end)]
        if not any(outer.count(call) > 1 for call in outer):
            kept.append(one)
    return kept


def _around(trace: Trace, one: Skip) -> Call:
    """Return the innermost call in which a skip begins and ends."""
    calls = [call for call in trace.calls if call.first <= one.source and one.join < call.end]
    return min(calls, key=lambda call: (call.end - call.first, -call.time), default=trace.calls[-1])


def _sites(trace: Trace, one: Skip) -> list[str]:
    """Name the argument that holds the skip alone: of the module that joins it, else of the first on its way.

    Of several modules inside each other it is the outermost. An element of a list counts where no argument is a map,
    and where there is none either, the channels of the skip in the joined map.
    """
    able = [(call, whole) for call, whole in _calls(trace) if _acts_on_it_alone(trace, one, call, whole)]
    for own in (True, False):
        found = [(call, whole) for call, whole in able if ("." not in parted(call.name)[1]) is own]
        joining = [(call, whole) for call, whole in found if whole.first <= one.join < whole.end]
        if best := joining or found:
            first = min(
                best, key=lambda pair: (bool(not joining) * (pair[0].value or 0), -_size(pair[1]), pair[0].time)
            )
            return [first[0].name]
    return _channels_of_the_join(trace, one)


def _channels_of_the_join(trace: Trace, one: Skip) -> list[str]:
    """Name the channels of the skip in the argument that holds the joined map, of the only module that uses it."""
    values = trace.values
    join, parents = values[one.join], values[one.join].parents
    sizes = [values[parent].shape[1] for parent in parents]
    if "cat" not in join.op or parents.count(one.side) != 1 or sum(sizes) != join.shape[1]:
        return []
    users = [index for index, value in enumerate(values) if one.join in value.parents]
    able = [
        (-_size(whole), call.time, call.name)
        for call, whole in _calls(trace)
        if call.value == one.join and users and all(whole.first <= user < whole.end for user in users)
    ]
    first = sum(sizes[: parents.index(one.side)])
    channels = first, first + values[one.side].shape[1]
    return [with_range(name, channels) for *_, name in sorted(able)[:1]]


def _alike(flow: Flow, chosen: set[str], separator: str) -> set[str]:
    """Name the same argument of modules of one class, side by side, that join two maps, if an encoder map comes in.

    So it is where an encoder with dilation has two levels of one resolution.
    """
    calls = list(_calls(flow.trace))
    joining = {_kind(*pair, separator) for pair in calls if pair[0].name in chosen}
    found = set[str]()
    for call, whole in calls:
        index, inside = call.value or 0, range(whole.first, whole.end)
        others = [other for other, one in calls if one is whole and "." not in parted(other.name)[1]]
        if _kind(call, whole, separator) in joining and len(others) > 1 and index not in flow.rising:
            outside = any(index in flow.parents[user] for user in flow.used if user not in inside)
            found |= {call.name} if outside and flow.trace.values[index].depth else set()
    return found


def _kind(call: Call, whole: Call, separator: str) -> tuple[str, type, str]:
    return whole.name.rpartition(separator)[0], whole.kind, parted(call.name)[1]


def _calls(trace: Trace) -> Iterable[tuple[Call, Call]]:
    """Yield each argument that is a map, with the call of its module, of those that can have a child."""
    calls: dict[str, list[Call]] = {}
    for call in trace.calls:
        calls.setdefault(call.name, []).append(call)
    for call in trace.arguments:
        module, _ = parted(call.name)
        ends = [whole for whole in calls.get(module, []) if whole.time > call.time]
        if module and call.value is not None and ends and not ends[0].container:
            yield call, ends[0]


def _acts_on_it_alone(trace: Trace, one: Skip, call: Call, whole: Call) -> bool:
    """Return whether a module uses an argument for the skip, and for nothing that the enlarged map is made of."""
    if call.value not in one.path - {one.join}:
        return False
    inside = range(whole.first, whole.end)
    uses = {index for index in inside if call.value in trace.values[index].parents}
    return not uses.isdisjoint(one.path) and uses.isdisjoint(one.deep)


def _size(call: Call) -> int:
    return call.end - call.first


def _without_module(trace: Trace, skips: list[Skip], others: list[str]) -> UsageError:
    """Return the error for skips that no module is called with: they are joined in the code of a larger one."""
    sources = list(dict.fromkeys(_maker(trace, one.source) for one in skips))
    holders = [call for call in trace.calls if call.first <= skips[0].join < call.end and not call.container]
    holder = min(holders, key=_size, default=trace.calls[-1])
    inside = f"the forward of {holder.name!r}" if holder.name else f"the forward of the {holder.kind.__name__} itself"
    named = f"where={sources[0]!r} attends to the map on both of its ways"
    rest = f"; where={list(dict.fromkeys(others))!r} are the other skips" if others else ""
    return UsageError(
        expected="for where='skip', modules that are called with the skips, such as up(x, skip)",
        received=f"skips that {inside} joins, those of {shortened([repr(name) for name in sources])}",
        do="pass each skip through a module of its own, such as self.skip2 = nn.Identity(), and name these in where=; "
        f"{named}{rest}",
    )


def _maker(trace: Trace, index: int) -> str:
    made = [call.name for call in trace.calls if call.value == index and call.name and not call.container]
    inside = [call for call in trace.calls if call.first <= index < call.end and call.name]
    return made[-1] if made else min(inside, key=_size).name if inside else ""
