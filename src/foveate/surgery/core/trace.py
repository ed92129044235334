"""The trace of a run: its values, and the modules or layers that made them; the same for torch and Keras."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Value:
    """The content of one tensor at one time: the result of an operation on earlier values.

    `parents` are the indices of the values it was computed from, `depth` is the longest chain of convolutions and
    linear layers from the input, and bit i of `ancestors` is set when value i is on a path to this one. `axis` is the
    channel axis of a feature map, 1 in (N, C, H, W) and 3 in (N, H, W, C), or None where the operations do not show it.
    """

    op: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    depth: int
    ancestors: int
    axis: int | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module or layer; calls are listed in the order in which they ended.

    `shape` is None when the output was not one tensor; `value` is None also when the output did not come from the
    input. `passed_through` means that the tensor existed before the call, as with `nn.Identity`, or dropout in eval
    mode. `convolutions` counts the convolutions and linear layers that ran inside, except those on maps of 1 x 1.
    `kind` is the class. `container` means that it runs or returns its own children, so that an added child would run
    too; `parent` that it has children; `element` that it is a child of a container.
    """

    name: str
    value: int | None
    shape: tuple[int, ...] | None
    passed_through: bool
    convolutions: int
    kind: type
    container: bool = False
    parent: bool = False
    element: bool = False
    dtype: Any = None
    device: Any = None


@dataclass(frozen=True)
class Trace:
    """The trace of one run. `outputs` are the values in the model's output; where there are none, the last value."""

    inputs: Sequence[Any]
    values: list[Value]
    calls: list[Call]
    outputs: list[int]
