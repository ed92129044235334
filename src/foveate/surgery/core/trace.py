"""The trace of a run: its values, and the modules or layers that made them; the same for torch and Keras."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from foveate.spec import layout


@dataclass(frozen=True, slots=True)
class Value:
    """The content of one tensor at one time: the result of an operation on earlier values.

    `parents` are the indices of the values it was computed from, `depth` is the longest chain of convolutions and
    linear layers from the input, and bit i of `ancestors` is set when value i is on a path to this one. `axis` is the
    channel axis of a feature map, 1 in (N, C, H, W) and 3 in (N, H, W, C), or None where the operations do not show it.
    Maps of 1-D and 3-D convolutions, (N, C, L) and (N, C, D, H, W), are feature maps too.
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
    too; `parent` that it has children; `element` that it is a child of a container. `taken` is the value of its
    argument, where it was called with one tensor that came from the input and nothing else. The values from `first` to
    before `end` were made inside. `time` counts the starts and ends of calls before it ended.

    The same describes an argument of a call, "decoder.blocks.0:skip": `kind` is then the class of what was passed, and
    `first` and `time` are those of the start of the call. `context` is set for a site whose attention takes a second
    map: a call of the site that makes it.
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
    taken: int | None = None
    first: int = 0
    end: int = 0
    time: int = 0
    context: "Call | None" = None


@dataclass(frozen=True)
class Trace:
    """The trace of one run. `outputs` are the values in the model's output; where there are none, the last value.

    `run` is what a host needs to run the model so again. `arguments` are what the modules were called with, also the
    elements of lists and dicts, in the order in which the calls started.
    """

    run: Any
    values: list[Value]
    calls: list[Call]
    outputs: list[int]
    arguments: list[Call] = field(default_factory=list)

    @cached_property
    def rank(self) -> int:
        """The number of axes of the model's maps, 4 for (N, C, H, W): that of most numbers its convolutions make."""
        sizes = Counter[int]()
        for value in self._convolved:
            sizes[len(value.shape)] += math.prod(value.shape)
        return max(sizes, key=lambda rank: sizes[rank], default=4)

    @cached_property
    def batch(self) -> int:
        """The number of samples of the first convolution: a model may make its batch of a list of images."""
        return next((value.shape[0] for value in [*self._convolved, *self.values] if value.shape), 1)

    @property
    def layout(self) -> str:
        """The axes of the model's maps in words, such as (N, C, H, W)."""
        return layout(self.rank)

    @property
    def _convolved(self) -> list[Value]:
        return [value for value in self.values if "conv" in value.op and len(value.shape) > 2]


def is_point(shape: Sequence[int]) -> bool:
    """Return whether a map has one position, such as (N, C, 1, 1)."""
    return set(shape[2:]) == {1}
