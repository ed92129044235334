"""The presets of `where`, "residual" and "stage", found in the trace of a probe run."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from foveate.surgery.core.trace import Call, Trace, Value

# Operations that may come between a module and the addition; the nearest module before them still ends the branch.
SLICES = {"slice", "split", "split_with_sizes"}
SCALINGS = {"mul", "div", "add", "neg", "clone", "copy", "_to_copy", "alias", "detach"} | SLICES
ACTIVATIONS = {
    "relu",
    "silu",
    "gelu",
    "elu",
    "mish",
    "sigmoid",
    "tanh",
    "hardswish",
    "hardtanh",
    "hardsigmoid",
    "leaky_relu",
    "clamp",
}


def residual(trace: Trace) -> list[str]:
    """Name the modules whose output is the branch that enters a residual addition, in the order in which they run."""
    branches = [index for index in (branch_of(trace.values, add) for add in trace.values) if index is not None]
    paths = [list(_back(trace.values, branch)) for branch in branches]
    wanted = {index for path in paths for index in path}
    makers = [next((name for index in path for name in _makers(trace.calls, index, wanted)), None) for path in paths]
    return list(dict.fromkeys(name for name in makers if name is not None))


def branch_of(values: list[Value], add: Value) -> int | None:
    """Return which operand of an addition of two feature maps is the branch; None for other additions.

    Both operands are followed back to the last value that both came from. Where one operand is that value (the identity
    shortcut), the other is the branch. Else the branch has at least twice the convolutions of the shortcut, as with a
    downsample. Not residual: sums of similar branches (RepVGG), slices of one map that are added in turn (Res2Net), and
    resolutions merged by upsampling (FPN, HRNet).
    """
    if (
        add.op != "add"
        or len(add.parents) != 2
        or not _is_map(values, add)
        or any(values[p].shape != add.shape for p in add.parents)
    ):
        return None
    a, b = add.parents
    shared = (values[a].ancestors | 1 << a) & (values[b].ancestors | 1 << b)
    if a == b or not shared:
        return None
    fork = shared.bit_length() - 1
    for shortcut, branch in ((a, b), (b, a)):
        if _holds(values, shortcut, fork) and branch != fork:
            return branch
    shortcut, branch = sorted((a, b), key=lambda index: values[index].depth)
    short, long = (values[index].depth - values[fork].depth for index in (shortcut, branch))
    merged = values[branch].op.startswith("upsample")
    whole = any(_takes_whole(values, fork, index) for index in (branch, shortcut))
    return branch if 2 * short <= long and long > 0 and whole and not merged else None


def stage(trace: Trace) -> list[str]:
    """Name the last module of each sequence of blocks of one resolution, in running order.

    A block is a module with children and with at least two convolutions inside. It is an element of a container, or its
    class is used at least twice. Where a model has no blocks on its trunk (VGG, DenseNet), the end is the last module
    with a convolution at each resolution. A first module with a single convolution is the stem, which is left out.
    """
    runs = [list(run) for _, run in groupby(trunk(trace), key=lambda index: trace.values[index].shape[2:])]
    if len(trace.outputs) > 1:  # the last head of a detector would look like a stage
        runs = [run for run in runs if not set(run) <= set(trace.outputs)]
    blocks = _blocks(trace)
    ends = [next((name for index in reversed(run) for name in _makers(blocks, index, set(run))), None) for run in runs]
    if not any(ends):
        depths = [0, *(trace.values[run[-1]].depth for run in runs)]
        added = [after - before for before, after in pairwise(depths)]
        stem = next((place for place, count in enumerate(added) if count), 0)
        long = [
            run
            for place, run in enumerate(runs)
            if added[place] > (place == stem) and trace.values[run[0]].shape[2:] != (1, 1)
        ]
        ends = [
            next((name for index in reversed(run) for name in _makers(trace.calls, index, {index})), None)
            for run in long
        ]
    return list(dict.fromkeys(name for name in ends if name is not None))


def trunk(trace: Trace) -> list[int]:
    """Return the feature maps that every path from the input to the outputs runs through."""
    relevant = 0
    for output in trace.outputs:
        relevant |= trace.values[output].ancestors | 1 << output
    used = [index for index in range(len(trace.values)) if relevant >> index & 1]
    last_use = {parent: index for index in used for parent in trace.values[index].parents}
    found, reach = [], 0
    for index in used:
        if reach <= index and _is_map(trace.values, trace.values[index]):
            found.append(index)
        reach = max(reach, last_use.get(index, 0))
    return found


def _is_map(values: list[Value], value: Value) -> bool:
    """Return whether a value is a feature map (N, C, H, W) of the input's batch, as far as the operations show."""
    return len(value.shape) == 4 and value.shape[0] == values[0].shape[0] and value.axis in (None, 1)


def _holds(values: list[Value], index: int, fork: int) -> bool:
    """Return whether a value is the fork, or a sum with the fork as a term (x + a(x) + b(x))."""
    if index <= fork:
        return index == fork
    return values[index].op == "add" and any(_holds(values, parent, fork) for parent in values[index].parents)


def _takes_whole(values: list[Value], fork: int, end: int) -> bool:
    """Return whether the path from the fork to the end starts at the fork itself, not only at slices of it."""
    onward = values[end].ancestors | 1 << end
    starts = (value for index, value in enumerate(values) if onward >> index & 1 and fork in value.parents)
    return any(value.op not in SLICES for value in starts)


def _back(values: list[Value], index: int) -> Iterator[int]:
    """Yield a value, then the earlier values that scalings, activations and slices made it from."""
    yield index
    value = values[index]
    if value.op in SCALINGS | ACTIVATIONS:
        whole = [
            parent
            for parent in value.parents
            if len(values[parent].shape) == 4 and _covers(values[parent].shape, value.shape)
        ]
        if len(whole) == 1:
            yield from _back(values, whole[0])


def _covers(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(size >= least for size, least in zip(shape, other, strict=True))


def _makers(calls: Sequence[Call], index: int, wanted: set[int]) -> list[str]:
    """Name the modules that output the value and can get a child; the innermost that made it comes first.

    Leaves out modules that also output values that are not wanted, such as one ReLU that a block uses several times.
    """
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


PRESETS = {"residual": residual, "stage": stage}
