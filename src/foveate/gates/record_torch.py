"""Record gates: `with foveate.record(model) as maps: model(x)`, then `maps["layer4.1.bn2"].spatial`."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.bind.torch.attention import Attention
from foveate.bind.torch.ops import PositionOps, TorchOps
from foveate.bind.torch.parts import Gate
from foveate.checks import check_choice
from foveate.gates.hearing import Hearing
from foveate.gates.kinds import KINDS, PAIRS, RecordedKind
from foveate.gates.pairwise import by_sample, is_map
from foveate.gates.recording import LIMIT, RecordedGate, Recording, limits_of
from foveate.spec import Mechanism, kept
from foveate.surgery.torch.attachment import check as check_sites
from foveate.torch_utils.names import plain_name, site_of, unwrapped

See: TypeAlias = Callable[[RecordedGate[Tensor], Tensor], None]
Heard: TypeAlias = Callable[[RecordedKind, Tensor, tuple[int, ...], Callable[[], NDArray]], None]


@contextmanager
def record(
    model: nn.Module, kinds: Iterable[RecordedKind] = KINDS, *, max_bytes: int | None = LIMIT
) -> Iterator[Recording[Tensor]]:
    """Record every gate of `kinds` that runs inside the block, in any mode; afterwards remove all hooks.

    Compiled models run uncompiled inside the block, because compiled code does not call hooks, and `DataParallel` runs
    on its first device. A site that runs twice is recorded twice. Raises UsageError for an unknown kind, for a site
    that lost its attention, and inside the block for gates of more than `max_bytes` in all; None allows any number.
    """
    recording: Recording[Tensor] = Recording(max_bytes=max_bytes)

    def keep(recorded: RecordedGate[Tensor], features: Tensor) -> None:
        recording.gates.append(recorded)

    with watch(model, keep, kinds, reserve=recording.reserve):
        yield recording


@contextmanager
def watch(
    model: nn.Module,
    see: See,
    kinds: Iterable[RecordedKind] = KINDS,
    *,
    reserve: Callable[[int, str], None] = lambda count, gate: None,
) -> Iterator[None]:
    """Call `see` with each gate that runs inside the block and the features (N, C, H, W) that it scales.

    Of attention between positions or channels the features are the keys. `reserve` is called before a gate is copied.
    """
    host, wanted = unwrapped(model), frozenset(kinds)
    check_sites(host)
    for kind in wanted:
        check_choice("each of kinds", kind, KINDS)
    listener = _TorchListener(see, reserve)
    with ExitStack() as undo:
        undo.callback(listener.close)
        undo.enter_context(_undivided(model))
        if "torch._dynamo" in sys.modules:  # imported when anything is compiled
            undo.enter_context(torch.compiler.set_stance("force_eager"))

        def hook(handle: Any) -> None:
            undo.callback(handle.remove)

        hook(host.register_forward_pre_hook(listener.count_call))
        for name, module in _named(host):
            if isinstance(module, Attention):
                gates = [gate for gate in module.modules() if isinstance(gate, Gate)]
                hook(module.register_forward_pre_hook(listener.keep_shape(gates)))
                if wanted & {*PAIRS}:
                    undo.enter_context(listener.hear(module, name, _site(host, name), wanted))
            if isinstance(module, Gate) and module.kind in wanted:
                hook(module.register_forward_hook(listener.on_gate(name, _site(host, name))))
        yield


class _TorchListener:
    """Turns what the hooks of one block see into recorded gates; closed, it does nothing."""

    def __init__(self, see: See, reserve: Callable[[int, str], None]):
        self.see, self.reserve, self.is_open, self.call = see, reserve, True, -1
        self.shapes: dict[nn.Module, tuple[int, ...]] = {}

    def close(self) -> None:
        """Do nothing from now on: a copy of the model, made inside the block, has copies of the hooks."""
        self.is_open = False

    def count_call(self, model: nn.Module, inputs: Any) -> None:
        """Count a call of the whole model."""
        self.call += 1

    def keep_shape(self, gates: list[Gate]) -> Any:
        """Return a pre-hook that keeps the shape of the features for the gates inside the attention."""

        def keep(module: Attention, inputs: tuple[Tensor, ...]) -> None:
            self.shapes.update(dict.fromkeys(gates, tuple(kept(module.mechanism, inputs).shape)))

        return keep

    def on_gate(self, name: str, site: str) -> Any:
        """Return a hook for a gate."""

        def listen(module: Gate, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            if not self.is_open:
                return
            kind: Any = module.kind
            n, _, *size = self.shapes.get(module) or inputs[0].shape
            with torch.no_grad():
                gate = module.gate(inputs[1]).detach()
                self.reserve(gate.nbytes, name)
                gate = gate.to("cpu", copy=True)
            if len(gate) > n:  # of groups of channels, which `Ops.group` makes samples
                gate = gate.unflatten(0, (n, -1)).flatten(1, 2)
            if len(size) != 2:
                gate = gate.reshape(*gate.shape[:2], *((1,) * len(size) if kind == "channel" else size))
            limits = limits_of(module)
            recorded = RecordedGate(name, site, kind, gate, tuple(size), limits, max(self.call, 0))
            self.see(recorded, inputs[0].detach())

        return listen

    @contextmanager
    def hear(self, module: Attention, name: str, site: str, wanted: frozenset[RecordedKind]) -> Iterator[None]:
        """Let a module compute with a vocabulary that listens to attention between positions, and between channels."""

        def heard(kind: RecordedKind, keys: Tensor, features: tuple[int, ...], read: Callable[[], NDArray]) -> None:
            is_of_map = kind == "pairwise"
            if not self.is_open or keys.is_meta or kind not in wanted:
                return
            if is_of_map and not is_map(tuple(keys.shape), features):
                return
            self.reserve(4 * (keys[:, 0] if is_of_map else keys[:, :, 0, 0]).numel(), name)
            gate = torch.from_numpy(by_sample(kind, read(), features[0]))
            size = tuple((keys.shape if is_of_map else features)[2:])
            self.see(RecordedGate(name, site, kind, gate, size, None, max(self.call, 0)), keys.detach())

        if "vocabulary" not in vars(module):
            module.vocabulary = _HearingTorchOps(), _HearingPositionOps()
        own: Any = module.vocabulary
        for ops in own:
            ops.listeners.append(heard)
        try:
            yield
        finally:
            for ops in own:
                ops.listeners.remove(heard)
            if not own[0].listeners:  # else another recording is still open
                del module.vocabulary


class _HearingTorchOps(Hearing[Tensor], TorchOps):
    """Tells the listeners of attention between positions or channels: its kind, the keys, and how each is read."""

    def __init__(self) -> None:
        self.listeners: list[Heard] = []
        self.features: tuple[int, ...] = ()

    def hear(self, kind: RecordedKind, read: Callable[..., NDArray], *given: Tensor) -> None:
        """Tell the listeners."""
        for heard in self.listeners:
            heard(kind, given[-1], self.features, lambda: read(*map(_array, given)))

    def apply(self, mechanism: Mechanism, p: Any, *xs: Tensor, inplace: bool = False) -> Tensor:
        """Keep the shape of the features, and run the mechanism."""
        self.features = tuple(xs[0].shape)
        return super().apply(mechanism, p, *xs, inplace=inplace)


class _HearingPositionOps(_HearingTorchOps, PositionOps): ...


def _array(tensor: Tensor) -> NDArray:
    return tensor.detach().float().cpu().numpy()


@contextmanager
def _undivided(model: nn.Module) -> Iterator[None]:
    """Let `DataParallel` inside a model run on its first device: its replicas run side by side, in any order."""
    divided = {module: module.device_ids for module in model.modules() if isinstance(module, nn.DataParallel)}
    try:
        for module, devices in divided.items():
            module.device_ids = devices[:1]
        yield
    finally:
        for module, devices in divided.items():
            module.device_ids = devices


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        yield plain_name(name), module


def _site(model: nn.Module, name: str) -> str:
    if (found := site_of(name)) is not None:
        return found[0]
    holders = [
        holder
        for holder, module in _named(model)
        if isinstance(module, Attention) and (not holder or holder == name or name.startswith(f"{holder}."))
    ]
    return min(holders, key=len, default=name)
