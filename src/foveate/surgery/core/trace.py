"""What a run of a model showed: values, and the modules or layers that made them. Pure data, the same for torch and Keras."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor at one moment: an operation applied to earlier values.

    `parents` are the indices of the values it was computed from, `depth` is the longest chain of convolutions and
    linear layers from the input, and bit i of `ancestors` is set when value i lies on a path to this one. `axis` is
    that of the channels in a feature map, 1 in (N, C, H, W) and 3 in (N, H, W, C), where the operations tell.
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

    `shape` is None when the output was not one tensor, `value` also when it did not come from the input.
    `passed_through` tells that the tensor existed before the call, as with `nn.Identity`, or dropout in eval mode.
    `convolutions` counts the convolutions and linear layers that ran inside, those of a squeeze to 1 x 1 excepted.
    `kind` is the class; `container` tells that it runs or hands out its own children, so that one more would be run
    too, `parent` that it has children, `element` that it is one of a container.
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
    """What one run showed. `outputs` are the values in the model's output, else, where none is to be found in it, the last value."""

    inputs: Sequence[Any]
    values: list[Value]
    calls: list[Call]
    outputs: list[int]
