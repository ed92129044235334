"""Find the channel axis of each feature map in a Keras graph, from layers that state it and operations that keep it."""

from collections.abc import Sequence
from typing import Any

import keras

AXES = {"channels_first": 1, "channels_last": 3}
ALIKE = (0, 1, 2, 3)
RESHAPES = ("Reshape", "Einsum", "EinsumDense", "Matmul", "Tensordot")  # they do not keep the axes of their inputs


def usual() -> int:
    """Return the channel axis of Keras's default data format."""
    return AXES[keras.config.image_data_format()]


class Layouts:
    """Find the channel axis of values with four axes, from the operations that connect them."""

    def __init__(self) -> None:
        self._stated: dict[int, int] = {}
        self._supposed: dict[int, int] = {}
        self._given: list[int] = []
        self._links: list[
            tuple[int, int, Sequence[int]]
        ] = []  # a value, a value made from it, and the source axis of each of its axes

    def give(self, value: int) -> None:
        """Record an input of the model; it has Keras's default format unless a layer states another."""
        self._given.append(value)

    def make(self, op: Any, parents: Sequence[int], value: int | None) -> None:
        """Record that an operation made a value from others; `value` is None where it made no feature map."""
        stated = _stated(op)
        if stated is not None:
            for parent in parents:
                self._supposed.setdefault(parent, stated)
        if value is None:
            return
        order = _order(op)
        if stated is not None:
            self._stated[value] = stated
        elif order is not None:
            self._links += [(parent, value, order) for parent in parents]
        if isinstance(op, keras.layers.BatchNormalization):
            self._supposed[value] = op.axis % 4

    def axes(self) -> dict[int, int]:
        """Return the channel axis of each value: stated, else from earlier values, else from later ones."""
        known = dict(self._stated)
        self._carry_on(known)
        known = self._supposed | known
        for value, made, order in reversed(self._links):
            if made in known:
                known.setdefault(value, order[known[made]])
        self._carry_on(known)
        known = dict.fromkeys(self._given, usual()) | known
        self._carry_on(known)
        return known

    def _carry_on(self, known: dict[int, int]) -> None:
        for value, made, order in self._links:
            if value in known:
                known.setdefault(made, order.index(known[value]))


def _stated(op: Any) -> int | None:
    """Return the channel axis that an operation states; Flatten's data format states only how it flattens."""
    if not hasattr(op, "data_format") or isinstance(op, keras.layers.Flatten):
        return None
    return AXES.get(op.data_format, usual())


def _order(op: Any) -> Sequence[int] | None:
    """Return the input axis of each output axis of an operation; None where it is unknown."""
    name = type(op).__name__ if type(op).__module__.startswith("keras.") else ""
    if name in RESHAPES:
        return None
    if name == "Permute":
        return (0, *op.dims)
    if name == "Transpose":
        return ALIKE[::-1] if op.axes is None else [axis % 4 for axis in op.axes]
    if name == "Swapaxes":
        return _moved((op.axis1, op.axis2), (op.axis2, op.axis1))
    return _moved(op.source, op.destination) if name == "Moveaxis" else ALIKE


def _moved(source: Sequence[int], target: Sequence[int]) -> list[int]:
    pairs = sorted((there % 4, here % 4) for here, there in zip(source, target, strict=True))
    order = [axis for axis in ALIKE if axis not in {here for _, here in pairs}]
    for there, here in pairs:
        order.insert(there, here)
    return order
