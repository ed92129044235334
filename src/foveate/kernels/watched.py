"""Notice that a layer changed after the arguments of an operation were read from it."""

from operator import eq, is_
from typing import Any

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Watched:
    """The attributes, the tensors and the absent hooks of layers, as they were when they were read."""

    def __init__(self) -> None:
        self._dicts: list[dict[str, Any]] = []
        self._copies: list[dict[str, Any]] = []
        self._holders: list[dict[str, Any]] = []
        self._names: list[str] = []
        self._tensors: list[Any] = []
        self._hooks: list[dict[int, Any]] = []

    def children(self, modules: dict[str, Any]) -> None:
        """Watch the children of a module."""
        self._dicts.append(modules)
        self._copies.append(dict(modules))

    def layer(self, attributes: dict[str, Any]) -> None:
        """Watch a layer without hooks."""
        self._dicts.append(attributes)
        self._copies.append(dict(attributes))
        self._hooks += [attributes[hooks] for hooks in HOOKS]
        for holder in (attributes["_parameters"], attributes["_buffers"]):
            self._holders += [holder] * len(holder)
            self._names += holder
            self._tensors += holder.values()

    def unchanged(self) -> bool:
        """Return whether all is as it was. Values in the tensors may have changed."""
        try:  # no Python code runs between two entries, so that each takes 10 to 40 ns
            return (
                not any(self._hooks)
                and all(map(is_, map(dict.get, self._holders, self._names), self._tensors))
                and all(map(eq, self._dicts, self._copies))
            )
        except (RuntimeError, ValueError):  # another tensor or array is an attribute of a layer now
            return False
