"""The input shapes of a Keras model: from the caller, from the model, and defaults for the rest."""

import reprlib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

from foveate.errors import UsageError

Shape = tuple[int | None, ...]
SIZE = 224  # the default height and width


def shapes(wanted: Sequence[Shape], example: Any) -> list[tuple[int, ...]]:
    """Return a complete shape for every input of a model that states the shapes `wanted`.

    Raises UsageError for an example that does not fit.
    """
    several = list(example) if isinstance(example, list | tuple) else []
    given = wanted if example is None else [example] if _is_shape(example) else several
    if len(given) != len(wanted) or not all(map(_fits, given, wanted)):
        raise UsageError(
            expected=f"example as the shape of the input, {', '.join(map(str, wanted))}",
            received=reprlib.repr(example),
            do="pass a shape such as (1, 224, 224, 3), or leave it out",
        )
    return [tuple(map(_size, range(len(theirs)), ours, theirs)) for ours, theirs in zip(given, wanted, strict=True)]


def _size(axis: int, given: int | None, wanted: int | None) -> int:
    size = wanted if given is None else given
    return (SIZE if axis else 1) if size is None else int(size)


def _is_shape(given: Any) -> bool:
    return isinstance(given, list | tuple) and all(size is None or isinstance(size, Integral) for size in given)


def _fits(given: Any, wanted: Shape) -> bool:
    if not _is_shape(given) or len(given) != len(wanted):
        return False
    return all(
        ours is None or (ours > 0 and theirs in (None, ours)) for ours, theirs in zip(given, wanted, strict=True)
    )
