"""The presets of `where`, "residual", "stage" and "skip", found in the trace of a probe run."""

from collections.abc import Iterator
from itertools import combinations

from foveate.surgery.core.flow import ACTIVATIONS, SCALINGS, SLICES, Flow
from foveate.surgery.core.skips import skip
from foveate.surgery.core.stages import modules_that_make, stage
from foveate.surgery.core.trace import Trace, Value


def residual(trace: Trace) -> list[str]:
    """Name the modules whose output is the branch that enters a residual addition, in the order in which they run."""
    flow = Flow(trace)
    pairs = (pair for add in flow.maps for pair in combinations(flow.terms(add), 2))
    branches = [branch for branch in (branch_of(flow, *pair) for pair in pairs) if branch is not None]
    paths = [list(_back(trace.values, branch)) for branch in branches if branch not in flow.predictions]
    wanted = {index for path in paths for index in path}
    ends = [
        next((name for index in path for name in modules_that_make(trace.calls, index, wanted)), None) for path in paths
    ]
    return list(dict.fromkeys(name for name in ends if name is not None))


def branch_of(flow: Flow, a: int, b: int) -> int | None:
    """Return which of two maps that are added is the branch; None where the sum is not residual.

    Both maps are followed back to the last value that both came from. Where one map is that value (the identity
    shortcut), the other is the branch. Else the branch has at least twice the convolutions of the shortcut, as with a
    downsample. Not residual: sums of similar branches (RepVGG), slices of one map that are added in turn (Res2Net), and
    merged resolutions, where every path of the branch passes a smaller map (FPN, HRNet, the skips of a decoder).
    """
    values = flow.trace.values
    shared = (values[a].ancestors | 1 << a) & (values[b].ancestors | 1 << b)
    if a == b or not shared:
        return None
    fork = shared.bit_length() - 1
    for shortcut, branch in ((a, b), (b, a)):
        if _holds(flow, shortcut, fork) and branch != fork:
            return branch if flow.stays_as_large(fork, branch) else None
    shortcut, branch = sorted((a, b), key=lambda index: values[index].depth)
    short, long = (values[index].depth - values[fork].depth for index in (shortcut, branch))
    whole = any(_takes_whole(values, fork, index) for index in (branch, shortcut))
    merged = not all(flow.stays_as_large(fork, end) for end in (branch, shortcut))
    return branch if 2 * short <= long and long > 0 and whole and not merged else None


def _holds(flow: Flow, index: int, fork: int) -> bool:
    """Return whether a value is the fork, or a sum with the fork as a term (x + a(x) + b(x))."""
    return index == fork or (index > fork and any(_holds(flow, term, fork) for term in flow.terms(index)))


def _takes_whole(values: list[Value], fork: int, end: int) -> bool:
    """Return whether a path from the fork to the end starts from the whole fork, not from a slice of it."""
    onward = values[end].ancestors | 1 << end
    starts = (value for index, value in enumerate(values) if onward >> index & 1 and fork in value.parents)
    return any(value.op not in SLICES for value in starts)


def _back(values: list[Value], index: int) -> Iterator[int]:
    """Yield a value, then what it was before scalings, activations and slices."""
    yield index
    value = values[index]
    if value.op in SCALINGS | ACTIVATIONS:
        whole = [
            parent
            for parent in value.parents
            if len(values[parent].shape) == len(value.shape) and _covers(values[parent].shape, value.shape)
        ]
        if len(whole) == 1:
            yield from _back(values, whole[0])


def _covers(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(size >= least for size, least in zip(shape, other, strict=True))


PRESETS = {"residual": residual, "stage": stage, "skip": skip}
