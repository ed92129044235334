"""Count the cost of any module while it runs, for modules such as the parameter-matched control."""

from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from foveate.cost import BYTES_PER_ELEMENT, Cost


class CostCounter(TorchDispatchMode):
    """Count as `foveate.cost` does: multiply-adds, elementwise operations, and each operand read and written once."""

    def __init__(self):
        super().__init__()
        self.macs = self.elementwise = self.elements = 0

    def cost(self, module: nn.Module) -> Cost:
        """Return the counted cost, with the number of parameters of the module that ran."""
        parameters = sum(parameter.numel() for parameter in module.parameters())
        return Cost(parameters, self.macs, self.elementwise, self.elements * BYTES_PER_ELEMENT)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count it; views are free."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func.is_view:
            return output
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        written = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)][:1]
        self.elements += sum(tensor.numel() for tensor in (*read, *written))
        if func.overloadpacket in flop_registry:
            self.macs += flop_registry[func.overloadpacket](*args, **kwargs, out_val=output) // 2
        elif written:
            self.elementwise += max(tensor.numel() for tensor in (*read[:1], *written))  # a reduction reads all
        return output
