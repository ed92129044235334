"""One watched run of a live model: which module made which tensor."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from foveate import kernels
from foveate.surgery.core.trace import Call, Record
from foveate.surgery.torch.child import CHILD
from foveate.surgery.torch.dataflow import LEARNABLE, Dataflow


def is_container(module: nn.Module) -> bool:
    """Whether the module runs or hands out its own children, so that one more would be run too."""
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def watch(model: nn.Module, inputs: Sequence[Tensor]) -> Record:
    """Run the model once in eval mode without gradients, and leave it, its buffers and the random state as they were."""
    device = inputs[0].device.type
    plain = torch.autocast(device, enabled=False) if torch.amp.autocast_mode.is_autocast_available(device) else torch.no_grad()
    with as_found(model), torch.no_grad(), plain, kernels.using("reference"):
        dataflow = Dataflow(inputs)
        with _call_hooks(model, dataflow) as calls, dataflow:
            output = model(*inputs)
        found = (dataflow.find(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        outputs = [index for index in found if index is not None]
        return Record(inputs, dataflow.values, calls, outputs or [len(dataflow.values) - 1])


def random_state() -> Callable[[], None]:
    """Return what puts the random state of the CPU, and of the GPUs in use, back to what it is now."""
    cpu = torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []

    def restore() -> None:
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)

    return restore


@contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Hold the model in eval mode, then give every module its attributes, flags and buffers back.

    The `training` flags are set directly: some models do real work in `train()` and `eval()`, such as merging weights.
    """
    attributes = [(module, dict(vars(module)), dict(module._buffers)) for module in model.modules()]
    contents = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    restore_random_state = random_state()
    try:
        for module, _, _ in attributes:
            module.training = False
        yield
    finally:
        restore_random_state()
        for module, before, buffers in attributes:
            for name in vars(module).keys() - before.keys():
                del vars(module)[name]
            vars(module).update(before)
            module._buffers.update(buffers)
        with torch.no_grad():
            for buffer, version, copy in contents:
                if buffer._version != version:
                    buffer.copy_(copy)


@contextmanager
def _call_hooks(model: nn.Module, dataflow: Dataflow) -> Iterator[list[Call]]:
    """Hook every module, after its own hooks, for as long as the context lasts."""
    names = {module: name for name, module in model.named_modules() if CHILD not in name.split(".")}
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
        squeezes = not isinstance(output, Tensor) or output.shape[2:] != (1, 1)
        convolutions = sum(not (squeezes and shape[2:] == (1, 1)) for shape in inside)
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
