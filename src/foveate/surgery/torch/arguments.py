"""The arguments that modules are called with: their names, as in a module's signature, and how to exchange one."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from foveate.errors import UsageError
from foveate.site_names import ranged

Key: TypeAlias = "int | str | slice"
Place: TypeAlias = tuple["int | None", tuple[Key, ...]]
"""Where an argument is: its position, None for keyword-only ones; and the keys of an element inside it."""

_PLAIN = re.compile(r"\w+")  # keys of dicts that can be part of a child's name


class Signature:
    """The signature of a module's forward; `order` has its names, with None for "any number of further ones"."""

    def __init__(self, module: nn.Module):
        try:
            found = inspect.signature(module.forward).parameters.values()
        except (TypeError, ValueError):
            found = ()
        self.order = [each.name for each in found if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
        self.rest = next((each.name for each in found if each.kind is each.VAR_POSITIONAL), "args")
        self.others = [each.name for each in found if each.kind is each.KEYWORD_ONLY]
        self.defaults = {each.name: each.default for each in found if each.default is not each.empty}

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the arguments of a call and the elements of lists and dicts in them, with their names, in order.

        The second of `*maps` is "maps.1". Arguments with a default that are not given come last.
        """
        given = {**dict(zip(self.order, args, strict=False)), **kwargs}
        in_order = {name: given.pop(name) for name in self.order if name in given}
        rest = {f"{self.rest}.{index}": value for index, value in enumerate(args[len(self.order) :])}
        defaults = {name: value for name, value in self.defaults.items() if name not in in_order | given}
        for name, value in (in_order | rest | given | defaults).items():
            yield from _flat(name, value)

    def place(self, name: str) -> Place:
        """Return where the argument of a name is."""
        head, *keys = name.split(".")
        path = tuple(map(_key, keys))
        if head in self.order:
            return self.order.index(head), path
        if head == self.rest and head not in self.others and path and isinstance(path[0], int):
            return len(self.order) + path[0], path[1:]
        return None, path


def exchange(
    args: tuple[Any, ...], kwargs: dict[str, Any], name: str, place: Place, change: Callable[[Any], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call with one of them changed; as they are where it is not given, or None."""
    head, (position, keys) = name.partition(".")[0], place
    if head in kwargs:
        return args, {**kwargs, head: _changed(kwargs[head], keys, change)}
    if position is not None and position < len(args):
        return (*args[:position], _changed(args[position], keys, change), *args[position + 1 :]), kwargs
    return args, kwargs


def _changed(value: Any, keys: tuple[Key, ...], change: Callable[[Any], Any]) -> Any:
    if value is None:
        return None
    if not keys:
        return change(value)
    if isinstance(keys[0], slice):
        before = [value[:, : keys[0].start]] if keys[0].start else []
        return torch.cat([*before, change(value[:, keys[0]]), value[:, keys[0].stop :]], 1)
    if isinstance(value, tuple):
        items = [_changed(one, keys[1:], change) if index == keys[0] else one for index, one in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if not isinstance(value, list | dict):
        do = "call the module as in the run that attention was attached with, or detach"
        raise UsageError(expected=f"a list or a dict with {keys[0]!r}", received=f"a {type(value).__name__}", do=do)
    key = keys[0] if isinstance(value, list) or keys[0] in value else str(keys[0])
    if key not in (value if isinstance(value, dict) else range(len(value))):
        return value
    new: Any = value.copy()
    new[key] = _changed(new[key], keys[1:], change)
    return new


def _key(text: str) -> Key:
    """Return an index, the channels "0to32", or the key of a dict."""
    _, channels = ranged(f"module:x.{text}")
    return int(text) if text.isdecimal() else slice(*channels) if channels else text


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield name, value
    items: Any = ()
    if isinstance(value, list | tuple) and len(value) < 100:
        items = enumerate(value)
    elif isinstance(value, dict):
        items = ((key, one) for key, one in value.items() if isinstance(key, str | int) and _PLAIN.fullmatch(str(key)))
    for key, one in items:
        yield from _flat(f"{name}.{key}", one)
