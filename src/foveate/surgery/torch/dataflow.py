"""Record how every tensor of a run was computed from the input: operations, views and in-place writes."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from foveate.surgery.core.trace import Value

LEARNABLE = {"convolution", "addmm", "mm", "linear"}
# Operations that use only the shape of a tensor, so that no data flows through them.
SHAPE_ONLY = {f"{make}_like" for make in ("empty", "zeros", "ones", "full", "rand", "randn")}
SHAPE_ONLY |= {f"new_{make}" for make in ("empty", "empty_strided", "zeros", "ones", "full")}


class Dataflow(TorchDispatchMode):
    """Record every operation that depends on the inputs, including in-place operations and views.

    A tensor is identified by its memory and its position there; a write makes new values of all tensors that share the
    memory. Each tensor stays alive until the end, so that no memory is reused.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: list[Value] = []
        self._alive: list[Tensor] = []
        self._at: dict[int, dict[tuple[Any, ...], int]] = {}
        self._writer: dict[int, int] = {}

    def add_inputs(self, tensors: Sequence[Tensor]) -> None:
        """Record tensors as inputs, except those that depend on others."""
        for tensor in tensors:
            if self.find(tensor) is None:
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
                self._make(tensor, op, parents, args, write=True)
            for tensor in tree_leaves(output) if not written else ():
                if isinstance(tensor, Tensor) and _place(tensor) not in self._at.get(_memory(tensor), {}):
                    self._make(tensor, op, parents, args)
        return output

    def _make(
        self, tensor: Tensor, op: str, parents: tuple[int, ...], args: Sequence[Any] = (), write: bool = False
    ) -> None:
        memory, index = _memory(tensor), len(self.values)
        writer = self._writer.get(memory)
        if (
            write
            and writer is not None
            and not any(writer == p or self.values[p].ancestors >> writer & 1 for p in parents)
        ):
            parents = (*parents, writer)  # a partial write keeps the rest from the last writer
        depth = max((self.values[p].depth for p in parents), default=0) + (op in LEARNABLE)
        ancestors = 0
        for parent in parents:
            ancestors |= self.values[parent].ancestors | 1 << parent
        axis = _channel_axis(op, args, [self.values[p] for p in parents], tensor.dim())
        self.values.append(Value(op, parents, tuple(tensor.shape), depth, ancestors, axis))
        self._alive.append(tensor)
        if write or memory not in self._at:
            self._at[memory], self._writer[memory] = {}, index
        self._at[memory][_place(tensor)] = index


def _channel_axis(op: str, args: Sequence[Any], parents: Sequence[Value], rank: int) -> int | None:
    """Follow the channels of a feature map through an operation."""
    if not 3 <= rank <= 5:
        return None
    if op == "convolution":
        return 1
    if op == "native_layer_norm" and len(args[1]) == 1:
        return rank - 1
    if op in ("view", "_unsafe_view"):
        return rank - 1 if parents[0].op in ("addmm", "mm") else None
    known = next((parent.axis for parent in parents if parent.axis is not None), None)
    if known is not None and op == "permute":
        return [axis % rank for axis in args[1]].index(known)
    if known is not None and op == "transpose":
        first, second = (axis % rank for axis in args[1:3])
        return {first: second, second: first}.get(known, known)
    return known


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
