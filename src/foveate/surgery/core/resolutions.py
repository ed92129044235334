"""The resolution of each map: how often each of its sides was halved since the input."""

import math
from collections.abc import Sequence
from typing import TypeAlias

from foveate.surgery.core.trace import Trace

Halvings: TypeAlias = tuple[int, ...]


def resolutions(trace: Trace, parents: Sequence[Sequence[int]]) -> list[Halvings]:
    """Return for each value how often the sides of the last map before it were halved, doublings counted negative.

    A few pixels more or less are no halving: not those that a convolution without padding takes away, nor a crop, nor a
    padding that the next operation takes away.
    `parents` are the values whose features each value holds.
    """
    found, last = list[Halvings](), list[tuple[int, ...] | None]()
    padded = dict[int, tuple[int, ...]]()
    none = (0,) * (trace.rank - 2)
    for index, value in enumerate(trace.values):
        known = [parent for parent in (*parents[index], *value.parents) if last[parent]]
        is_map = len(value.shape) == trace.rank and value.axis in (None, 1) and min(value.shape) > 0
        sizes = value.shape[2:] if is_map else None
        source = min(known, key=lambda parent: last[parent] != sizes) if known else None
        if source is None:
            found.append(none)
            last.append(sizes)
            continue
        before = last[source] or ()
        if "pad" in value.op:
            padded[index] = before
        elif padded.get(source) == sizes:
            before = sizes or before
        steps = [_halvings(value.op, *sides) for sides in zip(before, sizes or before, strict=True)]
        found.append(tuple(map(sum, zip(found[source], steps, strict=True))))
        last.append(sizes or before)
    return found


def _halvings(op: str, before: int, after: int) -> int:
    cut = "slice" in op or "crop" in op
    if after == before or "pad" in op or (cut and after not in (before // 2, (before + 1) // 2)):
        return 0
    if after <= (before + 1) // 2:
        return max(1, round(math.log2(before / after)))
    return -max(1, round(math.log2(after / before))) if after >= 2 * before - 1 else 0
