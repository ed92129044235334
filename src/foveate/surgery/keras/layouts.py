"""Where each feature map of a Keras graph has its channels: as the layers state it, and as the operations in between carry it on."""

from collections.abc import Sequence
from typing import Any

import keras

AXES = {"channels_first": 1, "channels_last": 3}
ALIKE = (0, 1, 2, 3)
RESHAPES = ("Reshape", "Einsum", "EinsumDense", "Matmul", "Tensordot")  # whose axes are not those of their inputs


def usual() -> int:
    """Return the axis of the channels in Keras's own setting."""
    return AXES[keras.config.image_data_format()]


class Layouts:
    """The axis of the channels of values that have four axes, by what was made of what."""

    def __init__(self) -> None:
        self._stated: dict[int, int] = {}
        self._supposed: dict[int, int] = {}
        self._given: list[int] = []
        self._links: list[
            tuple[int, int, Sequence[int]]
        ] = []  # a value, one made of it, and which of its axes that one's are

    def give(self, value: int) -> None:
        """Note an input of the model, which is as Keras's setting says unless some layer says otherwise."""
        self._given.append(value)

    def make(self, op: Any, parents: Sequence[int], value: int | None) -> None:
        """Note that an operation made a value from others; None for one that is no feature map."""
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
        """Return the axis of each value where it is known: stated, else from what came before, else from what follows."""
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
    """Return where an operation says that its channels are; that of Flatten only says how it flattens."""
    if not hasattr(op, "data_format") or isinstance(op, keras.layers.Flatten):
        return None
    return AXES.get(op.data_format, usual())


def _order(op: Any) -> Sequence[int] | None:
    """Return which axis of its input each axis of an operation's output is; None where that cannot be told."""
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
