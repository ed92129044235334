"""The presets of `where`, "residual" and "stage", found in the trace of a probe run."""

from collections.abc import Iterator

from foveate.surgery.core.flow import ACTIVATIONS, SCALINGS, SLICES, Flow
from foveate.surgery.core.stages import makers, stage
from foveate.surgery.core.trace import Trace, Value


def residual(trace: Trace) -> list[str]:
    """Name the modules whose output is the branch that enters a residual addition, in the order in which they run."""
    flow = Flow(trace)
    branches = [index for index in (branch_of(flow, add) for add in flow.maps) if index is not None]
    paths = [list(_back(trace.values, branch)) for branch in branches]
    wanted = {index for path in paths for index in path}
    ends = [next((name for index in path for name in makers(trace.calls, index, wanted)), None) for path in paths]
    return list(dict.fromkeys(name for name in ends if name is not None))


def branch_of(flow: Flow, index: int) -> int | None:
    """Return which operand of an addition of two feature maps is the branch; None for other additions.

    Both operands are followed back to the last value that both came from. Where one operand is that value (the identity
    shortcut), the other is the branch. Else the branch has at least twice the convolutions of the shortcut, as with a
    downsample. Not residual: sums of similar branches (RepVGG), slices of one map that are added in turn (Res2Net), and
    merged resolutions, where every path of the branch passes a smaller map (FPN, HRNet, the skips of a decoder).
    """
    values = flow.trace.values
    add = values[index]
    if add.op != "add" or len(add.parents) != 2 or any(values[p].shape != add.shape for p in add.parents):
        return None
    a, b = add.parents
    shared = (values[a].ancestors | 1 << a) & (values[b].ancestors | 1 << b)
    if a == b or not shared:
        return None
    fork = shared.bit_length() - 1
    for shortcut, branch in ((a, b), (b, a)):
        if _holds(values, shortcut, fork) and branch != fork:
            return branch if flow.keeps_size(fork, branch) else None
    shortcut, branch = sorted((a, b), key=lambda index: values[index].depth)
    short, long = (values[index].depth - values[fork].depth for index in (shortcut, branch))
    whole = any(_takes_whole(values, fork, index) for index in (branch, shortcut))
    merged = not all(flow.keeps_size(fork, end) for end in (branch, shortcut))
    return branch if 2 * short <= long and long > 0 and whole and not merged else None


def _holds(values: list[Value], index: int, fork: int) -> bool:
    """Return whether a value is the fork, or a sum with the fork as a term (x + a(x) + b(x))."""
    if index <= fork:
        return index == fork
    return values[index].op == "add" and any(_holds(values, parent, fork) for parent in values[index].parents)


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


PRESETS = {"residual": residual, "stage": stage}
