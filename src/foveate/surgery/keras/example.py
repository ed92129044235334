"""The input shapes of a Keras model: from the caller, from the model, and defaults for the rest."""

import reprlib
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any

import keras

from foveate.errors import UsageError

Shape = tuple[int | None, ...]
SIZE = 224  # the default height and width


def shapes(inputs: Any, example: Any) -> list[tuple[int, ...]]:
    """Return a complete shape for every input of a model, whose inputs are one tensor or nested lists and dicts.

    The example is one shape or array, a list of them, or a dict of them by the names of inputs, nested as the inputs
    are. Raises UsageError for an example that does not fit.
    """
    flat = keras.tree.flatten(inputs)
    wanted = [tuple(tensor.shape) for tensor in flat]
    given = dict[int, Any]()
    if example is not None:
        given.update(_given(inputs, example))
        if len(given) != len(flat) and isinstance(example, list | tuple) and len(example) == len(flat):
            given = {id(tensor): _shape(one) for tensor, one in zip(flat, example, strict=True)}
    found: list[Any] = [given.get(id(tensor)) for tensor in flat] if example is not None else wanted
    if not all(map(_fits, found, wanted)):
        named = any(isinstance(level, Mapping) for level in (inputs, example)) or len(flat) > 1
        wanted_shapes = (
            f"{tensor.name!r}: {shape}" if named else str(shape) for tensor, shape in zip(flat, wanted, strict=True)
        )
        raise UsageError(
            expected=f"example as the shape of {'each input' if named else 'the input'}, {', '.join(wanted_shapes)}",
            received=reprlib.repr(example),
            do="pass a shape such as (1, 224, 224, 3), or shapes in a list or a dict as the model takes its inputs",
        )
    return [tuple(map(_size, range(len(ours)), ours, theirs)) for ours, theirs in zip(found, wanted, strict=True)]


def _given(inputs: Any, example: Any) -> Iterator[tuple[int, Any]]:
    """Yield the shape that an example gives for each input, by the id of the input; nothing where the two differ."""
    shape = _shape(example)
    if isinstance(example, Mapping):
        if isinstance(inputs, Mapping):
            pairs = [(inputs[name], one) for name, one in example.items() if name in inputs]
            exact = set(inputs) == set(example)
        else:
            by_name = {tensor.name: tensor for tensor in keras.tree.flatten(inputs)}
            pairs = [(by_name[name], one) for name, one in example.items() if name in by_name]
            exact = set(by_name) == set(example)
    elif isinstance(inputs, list | tuple) and isinstance(example, list | tuple) and (shape is None or len(inputs) > 1):
        pairs, exact = list(zip(inputs, example, strict=False)), len(inputs) == len(example)
    else:
        leaves = keras.tree.flatten(inputs)
        if shape is None and isinstance(example, list | tuple) and len(example) == 1:
            shape = _shape(example[0])
        if len(leaves) == 1:
            yield id(leaves[0]), shape
        return
    for inner, one in pairs if exact else ():
        yield from _given(inner, one)


def _shape(example: Any) -> Shape | None:
    """Return a shape, or the shape of an array; None for anything else."""
    found = getattr(example, "shape", example)
    numbers = isinstance(found, list | tuple) and all(size is None or isinstance(size, Integral) for size in found)
    return tuple(found) if numbers else None


def _size(axis: int, given: int | None, wanted: int | None) -> int:
    size = wanted if given is None else given
    return (SIZE if axis else 1) if size is None else int(size)


def _fits(given: Shape | None, wanted: Shape) -> bool:
    if given is None or len(given) != len(wanted):
        return False
    return all(
        ours is None or (ours > 0 and theirs in (None, ours)) for ours, theirs in zip(given, wanted, strict=True)
    )
