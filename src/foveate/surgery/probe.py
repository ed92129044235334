"""One watched run of a live model: which module made which tensor, and how every tensor came from the input."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CHILD = "foveate_attention"
LEARNABLE = {"convolution", "addmm", "mm", "linear"}
# What takes only the shape of a tensor, so that nothing flows through it.
SHAPE_ONLY = {f"{make}_like" for make in ("empty", "zeros", "ones", "full", "rand", "randn")}
SHAPE_ONLY |= {f"new_{make}" for make in ("empty", "empty_strided", "zeros", "ones", "full")}


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor at one moment: an operation applied to earlier values.

    `parents` are the indices of the values it was computed from, `depth` is the longest chain of convolutions and linear layers
    from the input, and bit i of `ancestors` is set when value i lies on a path to this one.
    """

    op: str
    parents: tuple[int, ...]
    shape: tuple[int, ...]
    depth: int
    ancestors: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a module; calls are listed in the order in which they ended.

    `shape` is None when the output was not one tensor, `value` also when it did not come from the input. `passed_through` tells
    that the tensor existed before the call, as with `nn.Identity`, or dropout in eval mode. `convolutions` counts the convolutions
    and linear layers that ran inside, those of a squeeze to 1 x 1 excepted.
    """

    name: str
    value: int | None
    shape: tuple[int, ...] | None
    passed_through: bool
    convolutions: int
    dtype: torch.dtype | None = None
    device: torch.device | None = None


@dataclass(frozen=True)
class Watch:
    """What one run showed."""

    inputs: Sequence[Tensor]
    values: list[Value]
    calls: list[Call]
    outputs: list[int]


def watch(model: nn.Module, inputs: Sequence[Tensor]) -> Watch:
    """Run the model once in eval mode without gradients, and leave it, its buffers and the random state as they were."""
    device = inputs[0].device.type
    plain = torch.autocast(device, enabled=False) if torch.amp.autocast_mode.is_autocast_available(device) else torch.no_grad()
    with as_found(model), torch.no_grad(), plain:
        dataflow = Dataflow(inputs)
        with _call_hooks(model, dataflow) as calls, dataflow:
            output = model(*inputs)
        found = (dataflow.find(leaf) for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
        return Watch(inputs, dataflow.values, calls, [index for index in found if index is not None])


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


class Dataflow(TorchDispatchMode):
    """Records every operation that depends on the inputs, in-place ones and views included.

    A tensor is known by its memory and its place in it, and every write makes new values of all that share the memory. Each
    tensor is kept alive until the end, so that no memory is used twice.
    """

    def __init__(self, inputs: Sequence[Tensor]):
        super().__init__()
        self.values: list[Value] = []
        self._alive: list[Tensor] = []
        self._at: dict[int, dict[tuple[Any, ...], int]] = {}
        self._writer: dict[int, int] = {}
        for tensor in inputs:
            self._make(tensor, "input", ())

    def find(self, tensor: Tensor) -> int | None:
        """Return the value a tensor holds now; None when it does not depend on the inputs."""
        memory, place = _memory(tensor), _place(tensor)
        if memory not in self._at:
            return None
        if place not in self._at[memory]:
            self._make(tensor, "alias", (self._writer[memory],))
        return self._at[memory][place]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and record what it made."""
        kwargs = kwargs or {}
        op = func.overloadpacket.__name__.rstrip("_")
        read = (args, {name: value for name, value in kwargs.items() if name != "out"})
        tensors = [leaf for leaf in tree_leaves(read) if isinstance(leaf, Tensor)]
        parents = tuple(index for index in map(self.find, tensors) if index is not None)
        output = func(*args, **kwargs)
        if parents and op not in SHAPE_ONLY:
            written = _written(func, args, kwargs)
            for tensor in written:
                self._make(tensor, op, parents, write=True)
            for tensor in tree_leaves(output) if not written else ():
                if isinstance(tensor, Tensor) and _place(tensor) not in self._at.get(_memory(tensor), {}):
                    self._make(tensor, op, parents)
        return output

    def _make(self, tensor: Tensor, op: str, parents: tuple[int, ...], write: bool = False) -> None:
        memory, index = _memory(tensor), len(self.values)
        writer = self._writer.get(memory)
        if write and writer is not None and not any(writer == p or self.values[p].ancestors >> writer & 1 for p in parents):
            parents = (*parents, writer)  # a write to a part of the memory leaves the rest as the last writer made it
        depth = max((self.values[p].depth for p in parents), default=0) + (op in LEARNABLE)
        ancestors = 0
        for parent in parents:
            ancestors |= self.values[parent].ancestors | 1 << parent
        self.values.append(Value(op, parents, tuple(tensor.shape), depth, ancestors))
        self._alive.append(tensor)
        if write or memory not in self._at:
            self._at[memory], self._writer[memory] = {}, index
        self._at[memory][_place(tensor)] = index


@contextmanager
def _call_hooks(model: nn.Module, dataflow: Dataflow) -> Iterator[list[Call]]:
    """Hook every module, after its own hooks, for as long as the context lasts."""
    names = {module: name for name, module in model.named_modules() if CHILD not in name.split(".")}
    calls: list[Call] = []
    started: list[int] = []

    def start(module: nn.Module, args: Any) -> None:
        started.append(len(dataflow.values))

    def end(module: nn.Module, args: Any, output: Any) -> None:
        first = started.pop()
        inside = [value.shape for value in dataflow.values[first:] if value.op in LEARNABLE]
        squeezed = [shape for shape in inside if shape[2:] == (1, 1)]
        convolutions = len(inside) - (len(squeezed) if len(squeezed) < len(inside) else 0)
        if isinstance(output, Tensor):
            value = dataflow.find(output)
            through = value is not None and value < first
            calls.append(Call(names[module], value, tuple(output.shape), through, convolutions, output.dtype, output.device))
        else:
            calls.append(Call(names[module], None, None, False, convolutions))

    handles = [module.register_forward_pre_hook(start) for module in names]
    handles += [module.register_forward_hook(end) for module in names]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _written(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the arguments the operation writes to, by its schema."""
    written = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[position] if position < len(args) else kwargs.get(argument.name)
            written += [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    return written


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _place(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.storage_offset(), tuple(tensor.shape), tensor.stride()
