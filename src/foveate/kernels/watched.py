"""Notice that a layer changed after the arguments of an operation were read from it."""

from collections.abc import Sequence
from operator import eq, is_
from typing import Any

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Watched:
    """The classes, the attributes, the tensors and the absent hooks of layers, as they were when they were read."""

    def __init__(self) -> None:
        self._dicts: list[dict[str, Any]] = []
        self._copies: list[dict[str, Any]] = []
        self._holders: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._values: list[Any] = []
        self._hooks: list[dict[int, Any]] = []
        self._typed: list[Any] = []
        self._types: list[type] = []

    def children(self, modules: dict[str, Any]) -> None:
        """Watch the children of a module."""
        self._dicts.append(modules)
        self._copies.append(dict(modules))

    def layer(self, layer: nn.Module) -> None:
        """Watch a layer without hooks."""
        attributes = layer.__dict__
        self._dicts.append(attributes)
        self._copies.append(dict(attributes))
        self._without_hooks(layer)
        for holder in (attributes["_parameters"], attributes["_buffers"]):
            self._same(holder, holder)
            self._typed += holder.values()
            self._types += map(type, holder.values())

    def attributes(self, module: nn.Module, names: Sequence[str]) -> None:
        """Watch some attributes of a module without hooks."""
        attributes = module.__dict__
        self._without_hooks(module)
        self._same(attributes, {name: attributes.get(name) for name in names})

    def _without_hooks(self, module: nn.Module) -> None:
        self._hooks += [module.__dict__[hooks] for hooks in HOOKS]
        self._typed.append(module)
        self._types.append(type(module))

    def _same(self, holder: dict[str, Any], values: dict[str, Any]) -> None:
        self._holders += [holder] * len(values)
        self._names += values
        self._values += values.values()

    def unchanged(self) -> bool:
        """Return whether all is as it was. Values in the tensors may have changed."""
        try:  # no Python code runs between two entries, so that each takes 10 to 40 ns
            return (
                not any(self._hooks)
                and all(map(is_, map(type, self._typed), self._types))
                and all(map(is_, map(dict.get, self._holders, self._names), self._values))
                and all(map(eq, self._dicts, self._copies))
            )
        except Exception:  # an attribute of a layer is another object now, which cannot be compared, such as a tensor
            return False
