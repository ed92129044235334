"""What attaching needs of a framework: a small class each for PyTorch and for Keras, which `attaching` and `adapters` work on."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias

from foveate import cost
from foveate.cost import Cost
from foveate.errors import ReductionWarning
from foveate.spec import Mechanism, Start
from foveate.surgery.core.selectors import Selector
from foveate.surgery.core.trace import Call

Factory: TypeAlias = Callable[[int], Any]


class Host(Protocol):
    """A model that attention is attached to. Only `insert` and `remove` may change it.

    `bound` is the class of all attention of the framework; `versions` are those that an adapter file states.
    """

    model: Any
    bound: ClassVar[type[Any]]
    versions: ClassVar[dict[str, str]]

    def random_state(self) -> Callable[[], None]:
        """Return a function that sets the random state that first weights are drawn from back to what it is now."""
        ...

    def read(self, example: Any) -> Selector:
        """Return the parts of the model and the trace of one run on the example. Raises UsageError for a model that is no host."""
        ...

    def attached(self) -> Mapping[str, Any]:
        """Return the attached attention by the name of its site."""
        ...

    def count(self) -> int:
        """Return the number of parameters of the model without its attention."""
        ...

    def check_factory(self, mechanism: Any) -> None:
        """Raise UsageError unless the host can take attention from what is no mechanism: a function of the channels."""
        ...

    def make(self, call: Call, mechanism: Mechanism | Factory, start: Start) -> Any:
        """Return new attention for a site, given its first call, in its precision and memory layout. Raises UsageError for a misfit."""
        ...

    def measure(self, attention: Any, call: Call) -> Cost:
        """Return the cost of attention at one call of its site. Raises UsageError where it changes the shape."""
        ...

    def insert(self, attentions: Mapping[str, Any]) -> Any:
        """Return a model with attention at the sites of these names. Raises UsageError, with the host as it was."""
        ...

    def remove(self) -> Any:
        """Return a model without attention."""
        ...


def channels_of(call: Call) -> int:
    """Return the channels of a site."""
    return (call.shape or (0, 0))[1]


def cost_of(mechanism: Mechanism, shape: Sequence[int], start: Start) -> Cost:
    """Return the cost of one call of a mechanism, without the warnings that were given when it was built."""
    with warnings.catch_warnings(action="ignore", category=ReductionWarning):
        return cost.measure(mechanism, shape, start=start)
