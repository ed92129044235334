"""Record gates: `with foveate.record(model) as maps: model(x)`, then `maps["layer4.1.bn2"].spatial`."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor, nn

from foveate.bind.torch.attention import Attention
from foveate.bind.torch.parts import Gate
from foveate.checks import check_choice
from foveate.errors import UsageError, nearest
from foveate.parts import GateKind
from foveate.surgery.torch.attachment import check as check_sites
from foveate.torch_utils.names import plain_name, site_of


@dataclass(frozen=True, eq=False, repr=False)
class RecordedGate:
    """One gate of one forward pass, which multiplied the features; detached, on the CPU.

    `gate` is (N, C, 1, 1), (N, 1, H, W), (N, C, H, 1), (N, C, 1, W) or (N, C, H, W) for `kind` channel, spatial, row,
    column, full, and has as many axes as the features; a mechanism that works in G groups of channels has spatial gates
    (N, G, H, W). With the identity start 1 leaves the features unchanged, and a sigmoid lies between 0 and 2. `name` is
    the gate's module, `site` the host module it acts on (else the attention module), `size` the shape of the features
    without N and C: the height and width of a map.
    """

    name: str
    site: str
    kind: GateKind
    gate: Tensor
    size: tuple[int, ...]

    def __repr__(self) -> str:
        return f"{self.site} {self.kind} {tuple(self.gate.shape)}"


@dataclass(frozen=True, eq=False)
class SiteGates:
    """The gates of one site, in the order they ran; of a kind that ran more than once, the properties give the last."""

    site: str
    gates: tuple[RecordedGate, ...]

    @property
    def channel(self) -> Tensor | None:
        """Return the last channel gate (N, C, 1, 1), or None."""
        return self._last("channel")

    @property
    def spatial(self) -> Tensor | None:
        """Return the last spatial gate (N, 1, H, W), or None."""
        return self._last("spatial")

    @property
    def row(self) -> Tensor | None:
        """Return the last row gate (N, C, H, 1), or None."""
        return self._last("row")

    @property
    def column(self) -> Tensor | None:
        """Return the last column gate (N, C, 1, W), or None."""
        return self._last("column")

    @property
    def full(self) -> Tensor | None:
        """Return the last gate of channels and positions (N, C, H, W), or None."""
        return self._last("full")

    def map(self) -> Tensor | None:
        """Return a map (N, H, W): the spatial gate, or the channel mean of the full one or of row x column."""
        if self.spatial is not None:
            return self.spatial.mean(1)
        if self.full is not None:
            return self.full.mean(1)
        if self.row is not None and self.column is not None:
            return (self.row * self.column).mean(1)
        return None

    def _last(self, kind: GateKind) -> Tensor | None:
        return next((recorded.gate for recorded in reversed(self.gates) if recorded.kind == kind), None)


@dataclass(eq=False, repr=False)
class Recording:
    """The gates recorded so far: all in `gates`, in the order they ran, and those of a site in `recording[site]`."""

    gates: list[RecordedGate] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Recording of {len(self.gates)} gates" + "".join(f"\n  {recorded}" for recorded in self.gates)

    def __getitem__(self, site: str) -> SiteGates:
        found = tuple(recorded for recorded in self.gates if recorded.site == site)
        if found:
            return SiteGates(site, found)
        raise UsageError(
            expected="a site whose gates ran inside `with record(model)`",
            received=repr(site),
            do=nearest(site, self)
            if self.gates
            else "call the model inside the block; only models with attention have gates",
        )

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(recorded.site for recorded in self.gates))

    def __contains__(self, site: object) -> bool:
        return any(recorded.site == site for recorded in self.gates)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def spatial(self) -> dict[str, Tensor]:
        """Return the attention map (N, H, W) of each site that has one, as `SiteGates.map` does."""
        maps = {site: self[site].map() for site in self}
        return {site: found for site, found in maps.items() if found is not None}


KINDS: tuple[GateKind, ...] = get_args(GateKind)


@contextlib.contextmanager
def record(model: nn.Module, kinds: Iterable[GateKind] = KINDS) -> Iterator[Recording]:
    """Record every gate of `kinds` that runs inside the block, in any mode; afterwards remove all hooks.

    Compiled models run uncompiled inside the block, because compiled code does not call hooks. A site that runs twice
    is recorded twice. Raises UsageError for an unknown kind, and for a site that lost its attention.
    """
    check_sites(model)
    wanted, recording, shapes, handles = frozenset(kinds), Recording(), dict[Gate, tuple[int, ...]](), []
    for kind in wanted:
        check_choice("each of kinds", kind, KINDS)
    try:
        for name, module in _named(model):
            if isinstance(module, Attention):
                inner = [gate for gate in module.modules() if isinstance(gate, Gate)]
                handles.append(module.register_forward_pre_hook(_keep_shape(shapes, inner)))
            if isinstance(module, Gate) and module.kind in wanted:
                handles.append(module.register_forward_hook(_listener(recording, shapes, name, _site(model, name))))
        with torch.compiler.set_stance("force_eager") if _is_compiled(model) else contextlib.nullcontext():
            yield recording
    finally:
        for handle in handles:
            handle.remove()


def _keep_shape(shapes: dict[Gate, tuple[int, ...]], gates: list[Gate]) -> Any:
    def keep(module: Attention, inputs: tuple[Tensor, ...]) -> None:
        shapes.update(dict.fromkeys(gates, tuple(inputs[-1].shape)))

    return keep


def _listener(recording: Recording, shapes: dict[Gate, tuple[int, ...]], name: str, site: str) -> Any:
    def listen(module: Gate, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        kind: Any = module.kind
        n, _, *size = shapes.get(module) or inputs[0].shape
        with torch.no_grad():
            gate = module.gate(inputs[1]).detach().to("cpu", copy=True)
        if len(gate) > n:  # of groups of channels, which `Ops.group` makes samples
            gate = gate.unflatten(0, (n, -1)).flatten(1, 2)
        if len(size) != 2:
            gate = gate.reshape(*gate.shape[:2], *((1,) * len(size) if kind == "channel" else size))
        recording.gates.append(RecordedGate(name, site, kind, gate, tuple(size)))

    return listen


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        yield plain_name(name), module


def _site(model: nn.Module, name: str) -> str:
    if (found := site_of(name)) is not None:
        return found[0]
    holders = [
        holder
        for holder, module in _named(model)
        if isinstance(module, Attention) and (not holder or name.startswith(f"{holder}."))
    ]
    return min(holders, key=len, default=name)


def _is_compiled(model: nn.Module) -> bool:
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
