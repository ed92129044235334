"""Keep what was read from the layers of a module of attention for its next call, while its layers stay as they are."""

from typing import Any

from torch import Tensor, nn

from foveate.kernels import table
from foveate.kernels.table import Work
from foveate.kernels.torch_modules import TorchReader
from foveate.kernels.watched import Watched
from foveate.spec import Mechanism

READING = "_foveate_reading"


class LayerReading:
    """The work that was read from a module. A copy of the module reads anew, because its layers are others."""

    def __init__(self, mechanism: Mechanism, module: nn.Module):
        self._watched = Watched()
        self._mechanism, self._modules = mechanism, module._modules
        self.work = table.work(mechanism, module, TorchReader(self._watched))
        self.convolutions = table.convolutions(self.work)
        self.used_again = False
        self.of_leaves = not any(isinstance(value, Tensor) and value.grad_fn for value in self.work.args)

    def holds(self, mechanism: Mechanism, module: nn.Module) -> bool:
        """Return whether to read the module anew would give the same."""
        same = self._mechanism is mechanism and self._modules is module._modules
        return same and self._watched.unchanged()

    def __deepcopy__(self, memo: Any) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


def read(mechanism: Mechanism, module: nn.Module) -> tuple[Work, list[Tensor]]:
    """Return the work of a module of attention, and `table.convolutions` of it. Raises Unfit."""
    reading = module.__dict__.get(READING)
    if reading is not None and reading.holds(mechanism, module):
        reading.used_again = True
    else:
        reading = LayerReading(mechanism, module)
        # Computed weights, as of `functional_call`, would keep their graph alive.
        module.__dict__[READING] = reading if reading.of_leaves else None
    return reading.work, reading.convolutions
