"""The forms of the operations for CUDA maps."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from foveate.kernels.gpu.channel_spatial_backward import channel_spatial_gradients
from foveate.kernels.gpu.channel_spatial_forward import Finish, apply_gates, find_gates, finish_alone
from foveate.kernels.gpu.coordinate_gates import apply_line_gates, coordinate_gradients, find_line_gates
from foveate.kernels.gpu.launches import Map
from foveate.kernels.ops import Operation, channel_spatial, coordinate
from foveate.kernels.signatures import ChannelSpatial, Coordinate

NOTHING_AROUND = (0, 0.0, None, 0, 0.0)
"""The arguments of a finishing form for the gates alone."""


def channel_spatial_full(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, what backward needs, and the batch statistics."""
    given, on = ChannelSpatial(*args), Map(x)
    y, floats = torch.empty_like(on.x), _floats(given, x)
    kept, norm, statistics = find_gates(given, on, floats)
    apply_gates(given, on, kept, norm, y)
    return y, floats, statistics


def channel_spatial_inplace(x: Tensor, *args: Any) -> None:
    """Overwrite x with y."""
    channel_spatial_finish(x, *NOTHING_AROUND, *args)


def channel_spatial_finish(
    x: Tensor, before: int, before_slope: float, shortcut: Tensor | None, activation: int, slope: float, *args: Any
) -> None:
    """Overwrite x with activation(y + shortcut), where y is computed from before(x)."""
    given, on = ChannelSpatial(*args), _activated(x, before, before_slope)
    kept, norm, _ = find_gates(given, on, _floats(given, x))
    apply_gates(given, on, kept, norm, on.x, Finish(shortcut, activation, slope))
    _write_back(x, on)


def channel_spatial_gates(x: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    """Return the gates, in the dtype of x, empty where there is none."""
    given, on = ChannelSpatial(*args), Map(x)
    kept, norm, _ = find_gates(given, on, _floats(given, x))
    channel, spatial = given.gates(x)
    logits = kept.logits
    if norm.mean is not None and norm.variance is not None and norm.weight is not None and norm.bias is not None:
        logits = (logits - norm.mean) * (norm.weight.float() / torch.sqrt(norm.variance + given.eps)) + norm.bias
    return (
        x.new_empty(0) if channel is None else (given.scale * kept.channel).to(x.dtype).view(channel),
        x.new_empty(0) if spatial is None else (given.scale * logits.sigmoid()).to(x.dtype).view(spatial),
    )


def channel_spatial_backward(dy: Tensor, kept: Tensor, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """Return the gradients of x and of each weight."""
    return _backward(channel_spatial, channel_spatial_gradients, dy, kept, x, args)


def coordinate_full(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return y, what backward needs, and the batch statistics."""
    given, on = Coordinate(*args), Map(x)
    y, floats = torch.empty_like(on.x), _floats(given, x)
    gates, statistics = find_line_gates(given, on, floats)
    apply_line_gates(given, on, gates.sigmoids, y)
    return y, floats, statistics if given.training else x.new_empty((2, 0), dtype=torch.float32)


def coordinate_inplace(x: Tensor, *args: Any) -> None:
    """Overwrite x with y."""
    coordinate_finish(x, *NOTHING_AROUND, *args)


def coordinate_finish(
    x: Tensor, before: int, before_slope: float, shortcut: Tensor | None, activation: int, slope: float, *args: Any
) -> None:
    """Overwrite x with activation(y + shortcut), where y is computed from before(x)."""
    given, on = Coordinate(*args), _activated(x, before, before_slope)
    gates, _ = find_line_gates(given, on, _floats(given, x))
    apply_line_gates(given, on, gates.sigmoids, on.x, Finish(shortcut, activation, slope))
    _write_back(x, on)


def coordinate_only_gates(x: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    """Return the gates of rows and columns, in the dtype of x."""
    given, on = Coordinate(*args), Map(x)
    gates, _ = find_line_gates(given, on, _floats(given, x))
    both = (given.scale * gates.sigmoids).to(x.dtype)
    rows, columns = both.split((on.height, on.width), 2)
    return rows.contiguous()[..., None], columns.contiguous()[:, :, None]


def coordinate_backward(dy: Tensor, kept: Tensor, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """Return the gradients of x and of each weight."""
    return _backward(coordinate, coordinate_gradients, dy, kept, x, args)


def finish(x: Tensor, shortcut: Tensor | None, activation: int, slope: float) -> None:
    """Overwrite x with activation(x + shortcut)."""
    on = Map(x)
    finish_alone(on, on.x, Finish(shortcut, activation, slope))
    _write_back(x, on)


def _guarded(form: Callable[..., Any]) -> Callable[..., Any]:
    """Let a form run on the device of its map, where Triton launches, and without autocast, for its own products."""

    @wraps(form)
    def run(x: Tensor, *args: Any) -> Any:
        with ExitStack() as around:
            if x.is_cuda and x.get_device() != torch.cuda.current_device():
                around.enter_context(torch.cuda.device(x.device))
            if torch.is_autocast_enabled(x.device.type):
                around.enter_context(torch.autocast(x.device.type, enabled=False))
            return form(x, *args)

    return run


FORMS: dict[str, Callable[..., Any]] = {
    "channel_spatial": _guarded(channel_spatial_full),
    "channel_spatial_": _guarded(channel_spatial_inplace),
    "channel_spatial_finish_": _guarded(channel_spatial_finish),
    "channel_spatial_gates": _guarded(channel_spatial_gates),
    "channel_spatial_backward": _guarded(channel_spatial_backward),
    "coordinate": _guarded(coordinate_full),
    "coordinate_": _guarded(coordinate_inplace),
    "coordinate_finish_": _guarded(coordinate_finish),
    "coordinate_gates": _guarded(coordinate_only_gates),
    "coordinate_backward": _guarded(coordinate_backward),
    "finish_": _guarded(finish),
}


def register(library: torch.library.Library, key: str = "CUDA") -> None:
    """Register every form with torch for a dispatch key."""
    for name, form in FORMS.items():
        library.impl(name, form, key)


def _floats(given: ChannelSpatial | Coordinate, x: Tensor) -> Tensor:
    return x.new_empty(given.kept(x), dtype=torch.float32)


def _activated(x: Tensor, activation: int, slope: float) -> Map:
    """Return the dense map of x, activated in place in a pass of its own."""
    on = Map(x)
    if activation:
        finish_alone(on, on.x, Finish(None, activation, slope))
    return on


def _write_back(x: Tensor, on: Map) -> None:
    if on.x is not x:
        x.copy_(on.x)


def _backward(
    operation: Operation,
    gradients: Callable[..., dict[str, Tensor]],
    dy: Tensor,
    kept: Tensor,
    x: Tensor,
    args: Sequence[Any],
) -> tuple[Tensor, ...]:
    given, on = operation.signature(*args), Map(x)
    dx = torch.empty_like(on.x)
    found, weights = gradients(given, on, on.of(dy), kept, dx), given._asdict()
    named = [operation.signature._fields[index] for index in operation.learnable]
    return dx, *(
        kept.new_empty(0) if weights[name] is None else found[name].view(weights[name].shape) for name in named
    )
