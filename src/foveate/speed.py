"""The predicted time of a mechanism: the sum over its operations, from four measured numbers of a machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from foveate import cost, parts, spec
from foveate.cost import BYTES_PER_ELEMENT, Cost, Meter

MODULE = 4  # a module checks its input in about the time of so many operations


@dataclass(frozen=True)
class Speed:
    """How fast a machine runs operations, as `torch_utils.machine` measures it.

    `call` is the time of an operation on a map of a few values, in seconds. `bytes` and `macs` are bytes and
    multiply-adds per second on large maps, `scalar` the exponentials or other steps per second of a loop over single
    values.
    """

    call: float
    bytes: float
    macs: float
    scalar: float

    def seconds(self, bytes: int, macs: int, scalar: int = 0, calls: int = 1) -> float:
        """Predict the time of one operation, which moves bytes while it computes: the slowest of these counts."""
        return calls * self.call + max(bytes / self.bytes, macs / self.macs, scalar / self.scalar)


@dataclass(frozen=True)
class Predicted:
    """What is predicted of one call: its cost, its seconds, and the shape of the output."""

    cost: Cost
    seconds: float
    shape: tuple[int, ...]


def predict(
    mechanism: spec.Mechanism,
    speed: Speed,
    *shapes: Sequence[int],
    start: parts.Start = "paper",
    kernel: bool = False,
) -> Predicted:
    """Predict one call on inputs of these shapes.

    A `kernel` of Foveate takes about half the time of the plain operations, and at least that of one operation which
    reads the map twice and writes it once.
    """
    clock = Clock(speed)
    found, output = cost.run(mechanism, clock, *shapes, start=start)
    seconds = clock.seconds
    if kernel:
        seconds = max(seconds / 2, speed.seconds(3 * math.prod(shapes[-1]) * BYTES_PER_ELEMENT, found.macs))
    return Predicted(found, MODULE * speed.call + seconds, output.shape)


class Clock(Meter):
    """A meter that also sums the predicted time of the operations."""

    def __init__(self, speed: Speed) -> None:
        super().__init__()
        self.speed, self.seconds = speed, 0.0

    def add(self, macs: int, operations: int, elements: int, scalar: int, calls: int) -> None:
        """Add one operation to the sums, and its time."""
        super().add(macs, operations, elements, scalar, calls)
        self.seconds += self.speed.seconds(BYTES_PER_ELEMENT * elements, macs, scalar, calls)
