"""Choose the modules that attention takes the place of: those of a class, such as the SE of EfficientNet."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from foveate.errors import UsageError, shortened
from foveate.surgery.core.selectors import Selector, Where
from foveate.surgery.core.trace import Call, Value

Replace: TypeAlias = "str | type[Any] | Sequence[Replace]"


def choose(selector: Selector, replace: Replace, where: "Where | None", taken: Collection[str]) -> list[Call]:
    """Return the first call of each module of a class, in running order; `where` keeps those that it selects or holds.

    A module inside another one of them goes with it. `taken` are the sites that have attention. Raises UsageError where
    there are none, or where attention cannot take the place of one of them.
    """
    _check_given(replace)
    names = dict.fromkeys(call.name for call in selector.trace.calls if call.name and _is_of(call.kind, replace))
    if not names:
        raise _none_found(selector, replace, taken)
    if where is not None:
        holders = selector.select(where)
        if not (kept := [name for name in names if any(_is_in(name, holder, selector) for holder in holders)]):
            raise UsageError(
                expected=f"where to select, or to hold, a module of {_shown(replace)}",
                received=f"where={where!r}, which does so for none of {shortened(list(names))}",
                do="leave where out to replace all of them, or name a part of the model around some of them",
            )
        names = dict.fromkeys(kept)
    inner = {name for name in names for other in names if name != other and _is_in(name, other, selector)}
    return [_checked(selector, name) for name in names if name not in inner]


def check(selector: Selector, classes: Mapping[str, str]) -> None:
    """Raise UsageError where a module that is to be replaced has another class, or cannot be replaced."""
    for name, wanted in classes.items():
        kind = type(selector.parts[name])
        if not _is_of(kind, wanted):
            raise UsageError(
                expected=f"a model with a {wanted} at {name!r}, whose place the adapter's attention takes",
                received=f"one with a {kind.__name__} there",
                do="load the adapter into its own host, as it was before attention was attached",
            )
        _checked(selector, name)


def attention_classes(selector: Selector) -> list[str]:
    """Return the classes of modules that return their input times gates that they learn, as SE does."""
    values, found = selector.trace.values, dict[tuple[int, int], str]()
    for call in selector.trace.calls:
        if call.name and call.taken is not None and call.value is not None:
            ends = call.taken, call.value
            if values[call.value].depth > values[call.taken].depth and _is_weighed(values, *ends):
                found.setdefault(ends, call.kind.__name__)  # the innermost: a module around it gives the same tensors
    return list(dict.fromkeys(found.values()))


def _check_given(replace: Any) -> None:
    """Raise UsageError unless it is a class, the name of one, or a list of these."""
    if not replace or not isinstance(replace, type | str | Sequence):
        raise UsageError(
            expected="replace as the class of the modules to replace, its name, or a list of these",
            received=repr(replace),
            do="use replace='SqueezeExcitation', for example; where= says which of them",
        )
    if not isinstance(replace, type | str):
        for each in replace:
            _check_given(each)


def _is_of(kind: type, replace: Replace) -> bool:
    """Return whether a class is the one that is meant, or derived from it; a name may be an alias in its own file."""
    if isinstance(replace, type):
        return issubclass(kind, replace)
    if not isinstance(replace, str):
        return any(_is_of(kind, each) for each in replace)
    return any(
        replace == base.__name__ or vars(sys.modules.get(base.__module__, object)).get(replace) is base
        for base in kind.__mro__
    )


def _is_in(name: str, holder: str, selector: Selector) -> bool:
    return not holder or f"{name}{selector.separator}".startswith(f"{holder}{selector.separator}")


def _checked(selector: Selector, name: str) -> Call:
    """Return the first call of a module, each call of which takes one feature map and returns one of the same shape."""
    calls = [call for call in selector.trace.calls if call.name == name]
    kind = calls[0].kind.__name__
    for call in calls:
        taken = None if call.taken is None else selector.trace.values[call.taken].shape
        if taken is None:
            raise UsageError(
                expected="modules to replace that are called with one feature map and nothing else",
                received=f"{name!r}, a {kind} that is called with something else",
                do="leave it out by where=, or replace it in the model's code",
            )
        if taken != call.shape:
            raise UsageError(
                expected="modules to replace that return a map of the shape that they take, such as x * gate",
                received=f"{name!r}, a {kind} that takes {taken} and returns {call.shape or 'no single tensor'}",
                do=_instead(selector, kind),
            )
    selector.check_maps(name, calls)
    return calls[0]


def _none_found(selector: Selector, replace: Replace, taken: Collection[str]) -> UsageError:
    idle = [name for name, part in selector.parts.items() if name and _is_of(type(part), replace)]
    if idle:
        do = "replace modules that run, or pass an example= in which they do"
    elif taken:
        do = "detach(model) first, if attention has taken their place already"
    elif others := _suggested(selector):
        do = f"use {others}"
    else:
        do = "leave replace out to add attention: no module of this model weighs its input as attention does"
    return UsageError(
        expected=f"a model that runs a module of {_shown(replace)}, to be replaced",
        received=f"{idle[0]!r}, which the probe run did not call" if idle else "a model without one",
        do=do,
    )


def _instead(selector: Selector, kind: str) -> str:
    """Return what to do about a module of a class that does not return a map of the shape that it takes."""
    others = "" if kind in attention_classes(selector) else _suggested(selector)
    code = "leave it out by where=, or replace it in the model's code, which may multiply by what it returns"
    return f"use {others}; or {code}" if others else code


def _suggested(selector: Selector) -> str:
    """Name the classes of a model's own attention, "" where it has none."""
    found = [f"replace={kind!r}" for kind in attention_classes(selector)]
    return f"{' or '.join(found)}: modules of this model that weigh their input" if found else ""


def _is_weighed(values: list[Value], start: int, end: int) -> bool:
    """Return whether a value is an earlier one, or products of it with anything, or sums of such products."""
    value = values[end]
    if end == start or not value.ancestors >> start & 1:
        return end == start
    weighed = (_is_weighed(values, start, parent) for parent in value.parents)
    return (value.op == "mul" and any(weighed)) or (value.op == "add" and all(weighed))


def _shown(replace: Replace) -> str:
    if isinstance(replace, type):
        return f"the class {replace.__name__}"
    return f"the class {replace!r}" if isinstance(replace, str) else " or ".join(map(_shown, replace))
