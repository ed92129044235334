"""Run a model once and record which module made which tensor."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from foveate import kernels
from foveate.surgery.core.trace import Call, Trace, is_point
from foveate.surgery.torch.dataflow import LEARNABLE, Dataflow
from foveate.torch_utils.names import CHILD, is_attention
from foveate.torch_utils.unchanged import as_found


def is_container(module: nn.Module) -> bool:
    """Return whether the module runs or returns its own children, so that an added child would run too."""
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def watch(model: nn.Module, inputs: Sequence[Tensor]) -> Trace:
    """Run the model once in eval mode without gradients, without changing it, its buffers or the random state."""
    device = inputs[0].device.type
    plain = (
        torch.autocast(device, enabled=False)
        if torch.amp.autocast_mode.is_autocast_available(device)
        else torch.no_grad()
    )
    with as_found(model), torch.no_grad(), plain, kernels.using("reference"):
        dataflow = Dataflow(inputs)
        with _call_hooks(model, dataflow) as calls, dataflow:
            output = model(*inputs)
        found = (dataflow.find(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        outputs = [index for index in found if index is not None]
        return Trace(inputs, dataflow.values, calls, outputs or [len(dataflow.values) - 1])


@contextmanager
def _call_hooks(model: nn.Module, dataflow: Dataflow) -> Iterator[list[Call]]:
    """Hook every module, after its own hooks, while the context is active."""
    names = {module: name for name, module in model.named_modules() if not is_attention(name)}
    elements = {child for module in names if is_container(module) for child in module.children()}
    facts = {
        module: {
            "kind": type(module),
            "container": is_container(module),
            "parent": any(name != CHILD for name, _ in module.named_children()),
            "element": module in elements,
        }
        for module in names
    }
    calls: list[Call] = []
    started: list[int] = []

    def start(module: nn.Module, args: Any) -> None:
        started.append(len(dataflow.values))

    def end(module: nn.Module, args: Any, output: Any) -> None:
        first = started.pop()
        inside = [value.shape for value in dataflow.values[first:] if value.op in LEARNABLE]
        squeezes = not isinstance(output, Tensor) or not is_point(output.shape)
        convolutions = sum(not (squeezes and is_point(shape)) for shape in inside)
        if isinstance(output, Tensor):
            value = dataflow.find(output)
            through = value is not None and value < first
            made: dict[str, Any] = {"dtype": output.dtype, "device": output.device, **facts[module]}
            calls.append(Call(names[module], value, tuple(output.shape), through, convolutions, **made))
        else:
            calls.append(Call(names[module], None, None, False, convolutions, **facts[module]))

    handles = [module.register_forward_pre_hook(start) for module in names]
    handles += [module.register_forward_hook(end) for module in names]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()
