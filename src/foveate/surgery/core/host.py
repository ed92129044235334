"""The protocol of a host model; PyTorch and Keras each implement it in one class."""

import warnings
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Protocol, TypeAlias

from foveate import cost
from foveate.cost import Cost
from foveate.errors import ReductionWarning
from foveate.parts import Start
from foveate.spec import Mechanism, arranged
from foveate.surgery.core.checksums import Checksums
from foveate.surgery.core.selectors import Selector
from foveate.surgery.core.trace import Call

Factory: TypeAlias = Callable[[int], Any]


class Host(Protocol):
    """A model that attention is attached to. Only `insert` and `remove` may change it.

    `bound` is the base class of all attention of the framework; `versions` are the versions for an adapter file.
    """

    model: Any
    bound: ClassVar[type[Any]]
    versions: ClassVar[dict[str, str]]

    def random_state(self) -> Callable[[], None]:
        """Return a function that restores the present random state of weight initialisation."""
        ...

    def read(self, example: Any) -> Selector:
        """Return the parts of the model and the trace of one run on the example.

        Raises UsageError for a model that cannot be a host.
        """
        ...

    def attached(self) -> Mapping[str, Any]:
        """Return the attached attention by the name of its site."""
        ...

    def count(self) -> int:
        """Return the number of parameters of the model without its attention."""
        ...

    def checksums(self) -> Checksums:
        """Return the precision and a checksum of each of the host's tensors, {} where their names say nothing."""
        ...

    def replaced(self) -> Mapping[str, str]:
        """Return the class of each module that attention took the place of, by the name of the site."""
        ...

    def check_replaces(self) -> None:
        """Raise UsageError unless attention can take the place of modules of this host."""
        ...

    def check_contexts(self) -> None:
        """Raise UsageError unless attention of this host can take the map of another site."""
        ...

    def contexts(self) -> Mapping[str, str]:
        """Return the names of the contexts by the names of their sites."""
        ...

    def check_factory(self, mechanism: Any) -> None:
        """Raise UsageError unless the host takes this function, called with the channels, as a factory of attention."""
        ...

    def make(self, call: Call, mechanism: Mechanism | Factory, start: Start) -> Any:
        """Return new attention for a site, given its first call, in its precision and memory layout.

        Raises UsageError where attention does not fit the site.
        """
        ...

    def measure(self, attention: Any, call: Call) -> Cost:
        """Return the cost of attention at one call of its site. Raises UsageError where it changes the shape."""
        ...

    def needs_batch(self, attention: Any, call: Call) -> bool:
        """Return whether training fails there with a batch of one: a batch norm then has one value per channel."""
        ...

    def insert(
        self, attentions: Mapping[str, Any], replaced: Collection[str] = (), contexts: Mapping[str, str] | None = None
    ) -> Any:
        """Return a model with attention at the sites of these names, in the place of those that are replaced.

        `contexts` names the contexts of sites whose attention takes a second map.

        Raises UsageError; the host is then unchanged.
        """
        ...

    def remove(self) -> Any:
        """Return a model without attention, and with what it replaced."""
        ...


def channels_of(call: Call) -> int:
    """Return the number of channels of a site."""
    return (call.shape or (0, 0))[1]


def inputs_of(mechanism: Any, call: Call) -> tuple[Call, ...]:
    """Return the sites whose maps the attention takes at one call, in its order: with a context, two."""
    return (call,) if call.context is None else arranged(mechanism, call, call.context)


def shapes_of(mechanism: Any, call: Call) -> list[tuple[int, ...]]:
    """Return the shapes of the maps that the attention of a site takes at one call."""
    return [source.shape or () for source in inputs_of(mechanism, call)]


def cost_of(mechanism: Mechanism, call: Call, start: Start) -> Cost:
    """Return the cost of one call of a mechanism, without repeating the warnings from building it."""
    with warnings.catch_warnings(action="ignore", category=ReductionWarning):
        return cost.measure(mechanism, *shapes_of(mechanism, call), start=start)
