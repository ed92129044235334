"""What a trace's values are for: feature maps, gates that only weigh feature maps, and predictions."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from foveate.surgery.core.resolutions import Halvings, resolutions
from foveate.surgery.core.trace import Trace, Value, is_point

SLICES = {"slice", "split", "split_with_sizes"}
SCALINGS = {"mul", "div", "add", "neg", "clone", "copy", "_to_copy", "alias", "detach"} | SLICES
SUMS = {"add", "addcmul", "addcdiv", "lerp"}
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
    def outputs(self) -> list[int]:
        """The outputs, without features that are returned too and without those of auxiliary heads.

        Later layers make another output of such features. An auxiliary head leaves the network at one resolution and
        makes what a deeper output is again: values of the same shape.
        """
        values = self.trace.values
        made_of = {index: self.ancestors(index) for index in self.trace.outputs}

        def adds_nothing(one: int, deeper: int) -> bool:
            if one in made_of[deeper] or values[one].shape != values[deeper].shape:
                return one in made_of[deeper]
            own = {self.resolution(index) for index in made_of[one] - made_of[deeper] if self.learns(index)}
            return len(own) == 1 and own <= {self.resolution(index) for index in made_of[deeper] if self.learns(index)}

        deeper = {one: [two for two in made_of if values[two].depth > values[one].depth] for one in made_of}
        return [one for one in made_of if not any(adds_nothing(one, two) for two in deeper[one])]

    @cached_property
    def used(self) -> frozenset[int]:
        """The values whose features reach an output."""
        return self.ancestors(*self.outputs)

    @cached_property
    def maps(self) -> list[int]:
        """The feature maps that reach an output, in order, without images, predictions and padded maps."""
        found = sorted(self.used - self.predictions - self.pooled)
        return [index for index in found if self.has_size(index) and self.trace.values[index].depth]

    @cached_property
    def predictions(self) -> frozenset[int]:
        """The outputs and the steps before them, back to the convolutions that make them.

        Steps are operations without weights, transposed convolutions that keep the channels, the mean over all
        positions of a convolution without a norm (class scores, as in SqueezeNet), the sum of two layers' outputs that
        is enlarged afterwards (scores of two resolutions, as in FCN), and the sum with an image (x + net(x), as in
        denoising). Any other sum of maps ends the search, as it may end a residual block, and so does any other mean.
        """
        seen: dict[int, frozenset[int]] = {}
        return frozenset[int]().union(*(self._back_to_layers(output, seen) for output in self.outputs))

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

    @cached_property
    def images(self) -> frozenset[int]:
        """The inputs, what is made of them without more channels, and sums of such an image and anything else.

        None where no layer makes more channels of an image: the model is then a block of a larger one.
        """
        values, found, widened = self.trace.values, set[int](), False
        for index, value in enumerate(values):
            of_images = bool(self.parents[index]) and found.issuperset(self.parents[index])
            if of_images and self.learns(index):
                before, after = values[self.parents[index][0]].shape, value.shape
                widened |= len(before) == len(after) and before[1] < after[1]
                of_images = len(before) == len(after) and before[1] == after[1]
            if of_images or value.op == "input" or not found.isdisjoint(self.terms(index)):
                found.add(index)
        return frozenset(found if widened else ())

    @cached_property
    def passing(self) -> frozenset[int]:
        """The maps that only prepare another resolution.

        They are read only to make larger maps of fewer channels without a layer, as in a pixel shuffle, or by a layer
        that makes them smaller before the next one narrows them, as the wide maps of inverted residual blocks.
        """
        values, found, onward = self.trace.values, set[int](), dict[int, frozenset[int]]()

        def changes(index: int, reader: int) -> bool:
            before, after = values[index].shape[1], values[reader].shape[1:2]
            if not self.learns(reader):
                return reader in found or (
                    self._is_map(reader) and after < (before,) and self.area(reader) > self.area(index)
                )
            narrows = all(values[layer].shape[1] < before for layer in onward[reader])
            return after == (before,) and self.area(reader) < self.area(index) and narrows and bool(onward[reader])

        for index in sorted(self.used, reverse=True):
            readers = self.readers[index]
            layers = ({reader} if self.learns(reader) else onward[reader] for reader in readers)
            onward[index] = frozenset[int]().union(*layers)
            if self._is_map(index) and readers and all(changes(index, reader) for reader in readers):
                found.add(index)
        return frozenset(found)

    @cached_property
    def readers(self) -> dict[int, list[int]]:
        """For each value, the values that are made of it directly and whose features reach an output."""
        found: dict[int, list[int]] = {index: [] for index in self.used}
        for index in sorted(self.used):
            for parent in self.parents[index]:
                found[parent].append(index)
        return found

    def terms(self, index: int) -> tuple[int, ...]:
        """Return the maps that a value is the sum of; none where it is not a sum of maps."""
        values, parents = self.trace.values, self.parents[index]
        if values[index].op in ("sum", "mean") and len(parents) == 1 and values[parents[0]].op == "stack":
            parents = self.parents[parents[0]]
        elif values[index].op not in SUMS:
            return ()
        terms = tuple(parent for parent in parents if values[parent].shape == values[index].shape)
        return terms if len(terms) > 1 and self._is_map(index) else ()

    def area(self, index: int) -> int:
        """Return the number of positions of a map."""
        return math.prod(self.trace.values[index].shape[2:])

    def resolution(self, index: int) -> Halvings:
        """Return how often each side of a map was halved since the input."""
        return self._resolutions[index]

    def halvings(self, index: int) -> int:
        """Return how often the sides of a map were halved since the input, all sides together."""
        return sum(self._resolutions[index])

    @cached_property
    def _resolutions(self) -> list[Halvings]:
        return resolutions(self.trace, self.parents)

    @cached_property
    def rising(self) -> frozenset[int]:
        """The maps that have a smaller map among their ancestors, as in a decoder.

        The input may be resized before the first layer; such a map does not count.
        """
        most, found = dict[int, float](), set[int]()
        for index in sorted(self.used):
            most[index] = max((most[parent] for parent in self.parents[index]), default=float("-inf"))
            if self.has_size(index) and self.trace.values[index].depth:
                if most[index] > self.halvings(index):
                    found.add(index)
                most[index] = max(most[index], self.halvings(index))
        return frozenset(found)

    def stays_as_large(self, start: int, end: int) -> bool:
        """Return whether a path from one map to another passes no map of a lower resolution than the second."""
        reached, waiting = {end}, [end]
        while waiting:
            for parent in self.trace.values[waiting.pop()].parents:
                lower = self.has_size(parent) and self.halvings(parent) > self.halvings(end)
                if parent >= start and parent not in reached and not lower:
                    reached.add(parent)
                    waiting.append(parent)
        return start in reached

    def way(self, start: int, end: int, passes: Callable[[int], bool]) -> frozenset[int]:
        """Return the values on the ways from one value to another that only lead over those that `passes` allows.

        Both ends are on them; nothing is where there is no way.
        """
        back, waiting = {end}, [end]
        while waiting:
            for parent in self.parents[waiting.pop()]:
                if parent >= start and parent not in back and (parent == start or passes(parent)):
                    back.add(parent)
                    waiting.append(parent)
        onward = {start} & back
        for index in sorted(back):
            if not onward.isdisjoint(self.parents[index]):
                onward.add(index)
        return frozenset(onward)

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

    def has_size(self, index: int) -> bool:
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
                made = steps or (self.learns(index) and self._is_map(index))
                seen[index] = steps | {index} if made else frozenset()
        return seen[output]

    def _onward(self, index: int, output: int) -> list[int]:
        """Return the parents of a value that are steps before the output too."""
        parents, terms = list(self.parents[index]), self.terms(index)
        if self.learns(index):
            return [parent for parent in parents if self._is_enlarged(parent, index)]
        if terms:
            scores = self._is_enlarged(index, output) and all(map(self.learns, terms))
            return list(terms) if scores or not self.images.isdisjoint(terms) else []
        if self._pools(index):
            return [parent for parent in parents if self._is_plain_layer(parent)]
        return parents

    def _pools(self, index: int) -> bool:
        """Return whether a value is a mean, maximum or sum over all positions."""
        value = self.trace.values[index]
        sizes = [self.trace.values[parent].shape[2:] for parent in value.parents]
        pools = "pool" in value.op and is_point(value.shape) and set(*sizes[:1]) != {1}
        return value.op.startswith(GLOBAL_POOLING) or pools

    def _is_plain_layer(self, index: int) -> bool:
        """Return whether a map is a layer's output with at most an activation after it, not a norm."""
        while self.trace.values[index].op in ACTIVATIONS and len(self.parents[index]) == 1:
            (index,) = self.parents[index]
        return self._is_map(index) and self.learns(index)

    def _is_enlarged(self, index: int, larger: int) -> bool:
        """Return whether a value is a map of as many channels as a larger one that was made of it."""
        before, after = self.trace.values[index].shape, self.trace.values[larger].shape
        return self._is_map(index) and before[1] == after[1] and self.area(index) < self.area(larger)

    def learns(self, index: int) -> bool:
        """Return whether a value is the output of a convolution or linear layer."""
        values = self.trace.values
        return values[index].depth > max((values[parent].depth for parent in values[index].parents), default=0)

    def _gates(self, value: Value) -> set[int]:
        """Return the operands of a product or sum that only weigh or shift the other one.

        They have fewer positions, or one channel. In a product, it is also the operand that comes from a sigmoid or
        softmax where the other does not.
        """
        values = self.trace.values
        if value.op not in {"mul"} | SUMS or len(value.parents) < 2:
            return set()
        smaller = {p for p in value.parents if values[p].shape != value.shape and len(value.shape) == self.trace.rank}
        factors = value.parents if value.op == "mul" else value.parents[1:] if value.op == "addcmul" else ()
        if smaller or len(factors) != 2:
            return smaller if len(smaller) < len(value.parents) else set()
        gates = {factor for factor in factors if self._ends_in_a_sigmoid(factor)}
        return gates if len(gates) == 1 else set()

    def _ends_in_a_sigmoid(self, index: int) -> bool:
        value = self.trace.values[index]
        while value.op not in SIGMOIDS and value.op.startswith(("upsample", "slice", "split", "clone")):
            if len(value.parents) != 1:
                return False
            value = self.trace.values[value.parents[0]]
        return value.op in SIGMOIDS
