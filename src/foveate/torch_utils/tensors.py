"""Find the tensors in nested containers and plain objects, such as batches, detections and outputs of models."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors in mappings, sequences, sets and the attributes of objects, at any depth, in order."""
    return list(_found(value, set()))


def _found(value: Any, seen: set[int]) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif id(value) not in seen and not isinstance(value, str | bytes | type | nn.Module) and not callable(value):
        seen.add(id(value))
        if isinstance(value, Mapping):
            inside = list(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            inside = list(value)
        else:
            slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
            inside = [*getattr(value, "__dict__", {}).values(), *(getattr(value, name) for name in slots)]
        for each in inside:
            yield from _found(each, seen)


def _slots(kind: type) -> list[str]:
    names = vars(kind).get("__slots__", ())
    return [name for name in ([names] if isinstance(names, str) else names) if not name.startswith("__")]
