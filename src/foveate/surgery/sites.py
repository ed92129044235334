"""Choosing the sites of attention from the record of a probe run. Pure: nothing here runs or changes a model."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn

from foveate.errors import UsageError
from foveate.surgery import presets
from foveate.surgery.presets import PRESETS
from foveate.surgery.probe import is_container
from foveate.surgery.record import Call, Record

Predicate: TypeAlias = Callable[[str, nn.Module, tuple[int, ...]], bool]
Where: TypeAlias = "str | type[nn.Module] | Predicate | Sequence[Where]"


def choose(record: Record, modules: Mapping[str, nn.Module], where: Where) -> list[Call]:
    """Return the first call of every chosen site, in the order in which the sites run.

    `where` is "residual", "stage", a pattern of module names in which `*` stays within one name and `**` spans several
    (`"layer[34].*.bn3"`, `"**.bn2"`), a module type, a predicate `(name, module, output shape) -> bool`, or a list of these.
    A container gives its place to the module inside that made the very same output.
    Raises UsageError when nothing is chosen, or a chosen output is not (N, C, H, W) with one C at every call.
    """
    names = dict.fromkeys(_stand_in(record, modules, name) for name in _select(record, modules, where))
    calls = {call.name: call for call in reversed(record.calls)}
    for name in names:
        _check_shapes(record, name, [call for call in record.calls if call.name == name])
    order = {call.name: place for place, call in reversed(list(enumerate(record.calls)))}
    return [calls[name] for name in sorted(names, key=order.__getitem__)]


def _select(record: Record, modules: Mapping[str, nn.Module], where: Any) -> list[str]:
    called = list(dict.fromkeys(call.name for call in record.calls if call.name))
    if isinstance(where, str) and where in PRESETS:
        return PRESETS[where](record) or _refuse_preset(record, modules, where)
    if isinstance(where, str):
        return [name for name in called if _matches(where.split("."), name.split("."))] or _refuse_pattern(record, modules, where)
    if isinstance(where, type) and issubclass(where, nn.Module):
        chosen, what = [name for name in called if isinstance(modules[name], where)], f"the type {where.__name__}"
    elif isinstance(where, Sequence) and where:
        return [name for each in where for name in _select(record, modules, each)]
    elif callable(where) and not isinstance(where, type):
        shapes = {call.name: call.shape for call in record.calls if call.shape is not None}
        chosen, what = [name for name in called if name in shapes and where(name, modules[name], shapes[name])], "the predicate"
    else:
        raise UsageError(
            expected="where as a preset, a name pattern, a module type, a predicate, or a list of these",
            received=repr(where),
            do=f"use one of {', '.join(map(repr, PRESETS))}, or {_examples(record, modules)}",
        )
    if not chosen:
        raise UsageError(
            expected="where to choose at least one module that runs",
            received=f"{what}, which chooses none",
            do=f"use where={_examples(record, modules)}",
        )
    return chosen


def _matches(pattern: list[str], name: list[str]) -> bool:
    if not pattern or not name:
        return all(part == "**" for part in pattern) and not name
    if pattern[0] == "**":
        return _matches(pattern[1:], name) or _matches(pattern, name[1:])
    return fnmatchcase(name[0], pattern[0]) and _matches(pattern[1:], name[1:])


def _stand_in(record: Record, modules: Mapping[str, nn.Module], name: str) -> str:
    """Return the site itself, or for a container the module inside that made the very same output."""
    if not is_container(modules[name]):
        return name
    outputs = {call.value for call in record.calls if call.name == name}
    elsewhere = {call.name for call in record.calls if call.value not in outputs}
    inside = [call for call in record.calls if call.value in outputs and call.name.startswith(f"{name}.")]
    able = [call for call in inside if call.value is not None and call.name not in elsewhere and not is_container(modules[call.name])]
    if not able:
        raise UsageError(
            expected=f"a module inside {name!r} that makes its output",
            received=f"a {type(modules[name]).__name__}, which runs its own children and would run attention as one of them",
            do=f"choose a module inside or after it: {_examples(record, modules, name)}",
        )
    made = [call for call in able if not call.passed_through]
    return made[-1].name if made else able[0].name


def _check_shapes(record: Record, name: str, calls: list[Call]) -> None:
    shapes = [call.shape for call in calls]
    axes = [record.values[call.value].axis for call in calls if call.value is not None]
    odd = [shape for shape in shapes if shape is None or len(shape) != 4]
    if odd or set(axes) - {None, 1}:
        shape = odd[0] if odd else shapes[0]
        received = "something else than one tensor" if shape is None else f"a tensor of shape {shape}"
        raise UsageError(
            expected=f"the output of {name!r} as one tensor (N, C, H, W)",
            received=received if odd else f"{received}, whose channels are its last axis",
            do="choose a module that outputs a feature map (N, C, H, W)",
        )
    channels = {shape[1] for shape in shapes if shape is not None}
    if len(channels) > 1:
        raise UsageError(
            expected=f"one channel count at every call of {name!r}",
            received=f"{len(shapes)} calls with {' and '.join(map(str, sorted(channels)))} channels",
            do="choose modules that run at one width, since the attention of a module serves all its calls",
        )


def _refuse_preset(record: Record, modules: Mapping[str, nn.Module], where: str) -> list[str]:
    others = [name for name in PRESETS if name != where and PRESETS[name](record)]
    missing = {"residual": "a residual addition of feature maps (N, C, H, W)", "stage": "runs of blocks of one resolution"}[where]
    raise UsageError(
        expected=f"a model with {missing}, for where={where!r}",
        received="a model in which the probe run found none",
        do=" or ".join([*(f"use where={name!r}" for name in others), f"name modules, such as where={_examples(record, modules)}"]),
    )


def _refuse_pattern(record: Record, modules: Mapping[str, nn.Module], pattern: str) -> list[str]:
    idle = [name for name in modules if name and _matches(pattern.split("."), name.split("."))]
    raise UsageError(
        expected="where to match the name of a module that runs",
        received=f"{pattern!r}, which matches " + (f"{idle[0]!r}, but the probe run did not call it" if idle else "no module"),
        do=f"use where={_examples(record, modules, pattern)}",
    )


def _examples(record: Record, modules: Mapping[str, nn.Module], near: str = "") -> str:
    """Name a few modules of this model that can be sites, the nearest first."""
    able = [call.name for call in record.calls if call.name and call.shape is not None and len(call.shape) == 4]
    able = list(dict.fromkeys(name for name in able if not is_container(modules[name])))
    close = difflib.get_close_matches(near, able, 3, cutoff=0.4) if near else []
    names = close or presets.stage(record)[-3:] or able[-3:]
    return " or ".join(map(repr, names)) or "the name of a module with an output (N, C, H, W), of which this model has none"
