"""Choosing the sites of attention from the trace of a probe run. Pure: nothing here runs or changes a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import nn

from foveate.errors import UsageError
from foveate.surgery.core.selectors import Selector
from foveate.surgery.core.trace import Call, Trace
from foveate.surgery.torch.probe import is_container

Predicate: TypeAlias = Callable[[str, nn.Module, tuple[int, ...]], bool]
Where: TypeAlias = "str | type[nn.Module] | Predicate | Sequence[Where]"


def choose(trace: Trace, modules: Mapping[str, nn.Module], where: Where) -> list[Call]:
    """Return the first call of every chosen site, in the order in which the sites run.

    `where` is "residual", "stage", a pattern of module names in which `*` stays within one name and `**` spans several
    (`"layer[34].*.bn3"`, `"**.bn2"`), a module type, a predicate `(name, module, output shape) -> bool`, or a list of these.
    A container gives its place to the module inside that made the very same output.
    Raises UsageError when nothing is chosen, or a chosen output is not (N, C, H, W) with one C at every call.
    """
    idle = frozenset(name for name, module in modules.items() if is_container(module))
    selector = Selector(trace, modules, nn.Module, "module", ".", idle)
    names = dict.fromkeys(_stand_in(selector, name) for name in selector.select(where))
    calls = {call.name: call for call in reversed(trace.calls)}
    for name in names:
        selector.check_maps(name, [call for call in trace.calls if call.name == name])
    order = {call.name: place for place, call in reversed(list(enumerate(trace.calls)))}
    return [calls[name] for name in sorted(names, key=order.__getitem__)]


def _stand_in(selector: Selector, name: str) -> str:
    """Return the site itself, or for a container the module inside that made the very same output."""
    if name not in selector.idle:
        return name
    calls = selector.trace.calls
    outputs = {call.value for call in calls if call.name == name}
    elsewhere = {call.name for call in calls if call.value not in outputs}
    inside = [call for call in calls if call.value in outputs and call.name.startswith(f"{name}.")]
    able = [call for call in inside if call.value is not None and call.name not in elsewhere and call.name not in selector.idle]
    if not able:
        raise UsageError(
            expected=f"a module inside {name!r} that makes its output",
            received=f"a {type(selector.parts[name]).__name__}, which runs its own children and would run attention as one of them",
            do=f"choose a module inside or after it: {selector.examples(name)}",
        )
    made = [call for call in able if not call.passed_through]
    return made[-1].name if made else able[0].name
