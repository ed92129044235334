"""Run a model once and record which module made which tensor."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from foveate import kernels
from foveate.errors import UsageError
from foveate.site_names import joined
from foveate.surgery.core.trace import Call, Trace, is_point
from foveate.surgery.torch.arguments import Signature
from foveate.surgery.torch.dataflow import LEARNABLE, Dataflow
from foveate.torch_utils.names import CHILD, is_attention
from foveate.torch_utils.tensors import tensors
from foveate.torch_utils.unchanged import as_found


@dataclass(frozen=True)
class Run:
    """How to run a model: a function that gets the model, and the mode."""

    function: Callable[[nn.Module], Any]
    training: bool = False

    def in_training(self) -> "Run":
        """Return the same run in training mode."""
        return replace(self, training=True)

    def __call__(self, model: nn.Module) -> Any:
        """Return what the function returns, without gradients, and leave the model and the random state unchanged.

        Raises UsageError for a function that runs nothing of this model.
        """
        ran: set[nn.Module] = set()
        handles = [m.register_forward_pre_hook(lambda module, _: ran.add(module)) for m in model.modules()]
        try:
            with as_found(model, self.training), torch.no_grad(), kernels.using("reference"):
                made = self.function(model)
        finally:
            for handle in handles:
                handle.remove()
        if not ran:
            raise UsageError(
                expected="example as a function that runs the model that it is given",
                received="one in which no module of that model ran",
                do="use the function's argument: example=lambda model: model(x)",
            )
        return made

    def with_kernels(self, model: nn.Module) -> Any:
        """Return what the function returns with Foveate's kernels, which hooks would keep from running."""
        with as_found(model, self.training), torch.no_grad():
            return self.function(model)


def called_with(args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Run:
    """Return the run that calls a model with copies of these arguments."""

    def call(model: nn.Module) -> Any:
        mine, named = tree_map_only(Tensor, torch.clone, (args, dict(kwargs or {})))
        return model(*mine, **named)

    return Run(call)


def is_container(module: nn.Module) -> bool:
    """Return whether the module runs or returns its own children, so that an added child would run too."""
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)


def watch(model: nn.Module, run: Run) -> Trace:
    """Run the model once without gradients, without changing it, its buffers or the random state.

    The model's inputs are the tensors that it is called with, or that its modules are where the model is not called.
    Raises UsageError where there are none.
    """
    device = next((tensor.device.type for tensor in (*model.parameters(), *model.buffers())), "cpu")
    plain = (
        torch.autocast(device, enabled=False)
        if torch.amp.autocast_mode.is_autocast_available(device)
        else torch.no_grad()
    )
    dataflow, results = Dataflow(), list[Any]()
    with plain, _call_hooks(model, dataflow, results) as (calls, arguments), dataflow:
        made = run(model)
    if not dataflow.values:
        received = f"one that gives no tensor to the {type(model).__name__}"
        do = "pass tensors, as the model takes them"
        raise UsageError(expected="an example that runs the model on tensors", received=received, do=do)
    found = map(dataflow.find, tensors(results or made))
    outputs = [index for index in found if index is not None]
    return Trace(run, dataflow.values, calls, outputs or [len(dataflow.values) - 1], arguments)


@contextmanager
def _call_hooks(model: nn.Module, dataflow: Dataflow, results: list[Any]) -> Iterator[tuple[list[Call], list[Call]]]:
    """Hook every module, after its own hooks, while the context is active; list what the model itself returns."""
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
    signatures = {module: Signature(module) for module in names}
    calls: list[Call] = []
    arguments: list[Call] = []
    started: list[tuple[int, int | None]] = []
    time = count()

    def start(module: nn.Module, args: Any, kwargs: Any) -> None:
        if not started:
            dataflow.add_inputs(tensors((args, kwargs)))
        found = [argument(joined(names[module], name), value) for name, value in signatures[module].named(args, kwargs)]
        alone = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
        taken = dataflow.find(args[0]) if alone else None
        now, first = next(time), len(dataflow.values)
        arguments.extend(replace(call, first=first, end=first, time=now) for call in found)
        started.append((first, taken))

    def argument(name: str, value: Any) -> Call:
        if not isinstance(value, Tensor):
            return Call(name, None, None, True, 0, type(value))
        index = dataflow.find(value) if value.is_floating_point() else None
        return Call(name, index, tuple(value.shape), True, 0, type(value), dtype=value.dtype, device=value.device)

    def end(module: nn.Module, args: Any, output: Any) -> None:
        first, taken = started.pop()
        if module is model:
            results.append(output)
        inside = [value.shape for value in dataflow.values[first:] if value.op in LEARNABLE]
        squeezes = not isinstance(output, Tensor) or not is_point(output.shape)
        convolutions = sum(not (squeezes and is_point(shape)) for shape in inside)
        if isinstance(output, Tensor):
            value = dataflow.find(output)
            through = value is not None and value < first
            made: dict[str, Any] = {"dtype": output.dtype, "device": output.device, "taken": taken, **facts[module]}
            call = Call(names[module], value, tuple(output.shape), through, convolutions, **made)
        else:
            call = Call(names[module], None, None, False, convolutions, taken=taken, **facts[module])
        calls.append(replace(call, first=first, end=len(dataflow.values), time=next(time)))

    handles = [module.register_forward_pre_hook(start, with_kwargs=True) for module in names]
    handles += [module.register_forward_hook(end) for module in names]
    try:
        yield calls, arguments
    finally:
        for handle in handles:
            handle.remove()
