"""What a trace's values are for: feature maps, gates that only weigh feature maps, and predictions."""

import math
from dataclasses import dataclass
from functools import cached_property

from foveate.surgery.core.trace import Trace, Value, is_point

SLICES = {"slice", "split", "split_with_sizes"}
SCALINGS = {"mul", "div", "add", "neg", "clone", "copy", "_to_copy", "alias", "detach"} | SLICES
GLOBAL_POOLING = ("mean", "amax", "sum", "adaptive", "_adaptive", "logsumexp", "global")
SIGMOIDS = {"sigmoid", "hardsigmoid", "tanh", "softmax", "_softmax"}
ACTIVATIONS = SIGMOIDS | {
    "relu",
    "silu",
    "gelu",
    "elu",
    "mish",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "clamp",
}


@dataclass(frozen=True)
class Flow:
    """A trace without its gates: the `parents` of a product are the features, not the gate."""

    trace: Trace

    @cached_property
    def parents(self) -> list[tuple[int, ...]]:
        """For each value, the values whose features it holds."""
        return [
            tuple(parent for parent in value.parents if parent not in self._gates(value)) for value in self.trace.values
        ]

    @cached_property
    def used(self) -> frozenset[int]:
        """The values whose features reach an output."""
        return self.ancestors(*self.trace.outputs)

    @cached_property
    def maps(self) -> list[int]:
        """The feature maps that reach an output, in order, without predictions and padded maps."""
        return [index for index in sorted(self.used - self.predictions - self.pooled) if self._has_size(index)]

    @cached_property
    def predictions(self) -> frozenset[int]:
        """The outputs and the steps before them, back to the convolutions that make them.

        Steps are operations without weights, transposed convolutions that keep the channels, and the sum of two layers'
        outputs that is enlarged afterwards (scores of two resolutions, as in FCN). Any other sum of maps ends the
        search, as it may end a residual block, and so does a mean over all positions.
        """
        seen: dict[int, frozenset[int]] = {}
        return frozenset[int]().union(*(self._back_to_layers(output, seen) for output in self.trace.outputs))

    @cached_property
    def pooled(self) -> frozenset[int]:
        """The maps of one position that a global mean or maximum made, and the maps made only from these."""
        values, found = self.trace.values, set[int]()
        for index, value in enumerate(values):
            if is_point(value.shape):
                maps = [parent for parent in value.parents if len(values[parent].shape) > 2]
                if maps and (value.op.startswith(GLOBAL_POOLING) or found.issuperset(maps)):
                    found.add(index)
        return frozenset(found)

    def area(self, index: int) -> int:
        """Return the number of positions of a map."""
        return math.prod(self.trace.values[index].shape[2:])

    @cached_property
    def rising(self) -> frozenset[int]:
        """The maps that have a smaller map among their ancestors, as in a decoder.

        The input may be resized before the first layer; such a map does not count.
        """
        least, found = dict[int, float](), set[int]()
        for index in sorted(self.used):
            below = min((least[parent] for parent in self.parents[index]), default=float("inf"))
            if not self._has_size(index) or not self.trace.values[index].depth:
                least[index] = below
                continue
            if below < self.area(index):
                found.add(index)
            least[index] = min(below, self.area(index))
        return frozenset(found)

    def keeps_size(self, start: int, end: int) -> bool:
        """Return whether a way from one map to another leads through no smaller map than the second."""
        least = self.area(end)
        reached, waiting = {end}, [end]
        while waiting:
            for parent in self.trace.values[waiting.pop()].parents:
                small = self._has_size(parent) and self.area(parent) < least
                if parent >= start and parent not in reached and not small:
                    reached.add(parent)
                    waiting.append(parent)
        return start in reached

    def ancestors(self, *indices: int) -> frozenset[int]:
        """Return the values whose features any of these values holds, themselves included."""
        found, waiting = set(indices), list(indices)
        while waiting:
            for parent in self.parents[waiting.pop()]:
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return frozenset(found)

    def _is_map(self, index: int) -> bool:
        """Return whether a value is a feature map (N, C, H, W) of the input's batch, as far as the operations tell."""
        value, trace = self.trace.values[index], self.trace
        return len(value.shape) == trace.rank and value.shape[0] == trace.batch and value.axis in (None, 1)

    def _has_size(self, index: int) -> bool:
        """Return whether the size of a map counts as a resolution; a padded map only prepares a convolution."""
        return self._is_map(index) and "pad" not in self.trace.values[index].op

    def _back_to_layers(self, output: int, seen: dict[int, frozenset[int]]) -> frozenset[int]:
        """Return an output and the steps before it, back to the layers that made it; nothing where no layer did."""
        waiting = [(output, output)]
        while waiting:
            index, larger = waiting[-1]
            larger = larger if self._is_map(larger) else index
            onward = [] if index in seen else self._onward(index, larger)
            if left := [(parent, larger) for parent in reversed(onward) if parent not in seen]:
                waiting += left
                continue
            waiting.pop()
            if index not in seen:
                steps = frozenset[int]().union(*(seen[parent] for parent in onward))
                made = steps or (self._learns(index) and self._is_map(index))
                seen[index] = steps | {index} if made else frozenset()
        return seen[output]

    def _onward(self, index: int, output: int) -> list[int]:
        """Return the parents of a value that are steps before the output too."""
        parents, op = list(self.parents[index]), self.trace.values[index].op
        if self._learns(index):
            return [parent for parent in parents if self._is_enlarged(parent, index)]
        if op == "add" and self._is_map(index):
            return parents if self._is_enlarged(index, output) and all(map(self._learns, parents)) else []
        return [] if op.startswith(GLOBAL_POOLING) else parents

    def _is_enlarged(self, index: int, larger: int) -> bool:
        """Return whether a value is a map of as many channels as a larger one that was made of it."""
        before, after = self.trace.values[index].shape, self.trace.values[larger].shape
        return self._is_map(index) and before[1] == after[1] and self.area(index) < self.area(larger)

    def _learns(self, index: int) -> bool:
        """Return whether a value is the output of a convolution or linear layer."""
        values = self.trace.values
        return values[index].depth > max((values[parent].depth for parent in values[index].parents), default=0)

    def _gates(self, value: Value) -> set[int]:
        """Return the operands of a product or sum that only weigh or shift the other one.

        They have fewer positions, or one channel. In a product, it is also the operand that comes from a sigmoid or
        softmax where the other does not.
        """
        values = self.trace.values
        if value.op not in ("mul", "add") or len(value.parents) != 2:
            return set()
        smaller = {p for p in value.parents if values[p].shape != value.shape and len(value.shape) == self.trace.rank}
        if smaller or value.op == "add":
            return smaller if len(smaller) < len(value.parents) else set()
        gates = {p for p in value.parents if self._ends_in_a_sigmoid(p)}
        return gates if len(gates) == 1 else set()

    def _ends_in_a_sigmoid(self, index: int) -> bool:
        value = self.trace.values[index]
        while value.op not in SIGMOIDS and value.op.startswith(("upsample", "slice", "split", "clone")):
            if len(value.parents) != 1:
                return False
            value = self.trace.values[value.parents[0]]
        return value.op in SIGMOIDS
