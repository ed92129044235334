"""A vocabulary that hears attention between positions or channels before it computes; for every backend."""

from abc import abstractmethod
from collections.abc import Callable

from numpy.typing import NDArray

from foveate.gates.kinds import RecordedKind
from foveate.gates.pairwise import (
    read_by_all,
    read_by_neighbours,
    read_by_pooling,
    read_channels,
    read_in_cross,
    read_linearly,
)
from foveate.ops import Array, Ops


class Hearing(Ops[Array]):
    """Stands before a backend's vocabulary in the bases of a class: `class Mine(Hearing[Tensor], TorchOps)`."""

    @abstractmethod
    def hear(self, kind: RecordedKind, read: Callable[..., NDArray], *given: Array) -> None:
        """Hear of attention: what it is made from, the keys (or scores, or weights) last, and how that is read."""

    def attend(self, queries: Array, keys: Array, values: Array, scale: float) -> Array:
        """Hear, and attend."""
        self.hear("pairwise", lambda q, k: read_by_all(q, k, scale), queries, keys)
        return super().attend(queries, keys, values, scale)

    def criss_cross(self, queries: Array, keys: Array, values: Array) -> Array:
        """Hear, and attend."""
        self.hear("pairwise", read_in_cross, queries, keys)
        return super().criss_cross(queries, keys, values)

    def attention_pool(self, x: Array, scores: Array) -> Array:
        """Hear, and pool."""
        self.hear("pairwise", read_by_pooling, scores)
        return super().attention_pool(x, scores)

    def attend_linear(self, queries: Array, keys: Array, values: Array) -> Array:
        """Hear, and attend."""
        self.hear("pairwise", read_linearly, queries, keys)
        return super().attend_linear(queries, keys, values)

    def attend_channels(self, queries: Array, keys: Array, values: Array, scale: float) -> Array:
        """Hear, and attend."""
        self.hear("channel_pairs", lambda q, k: read_channels(q, k, scale), queries, keys)
        return super().attend_channels(queries, keys, values, scale)

    def local_conv(self, x: Array, weights: Array, kernel: int) -> Array:
        """Hear of the weights, and convolve."""
        self.hear("pairwise", lambda w: read_by_neighbours(w, kernel), weights)
        return super().local_conv(x, weights, kernel)
