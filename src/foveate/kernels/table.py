"""How each mechanism's module becomes an operation's arguments, and what about a module keeps it from being one."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from torch import Tensor, nn

from foveate.kernels import ops
from foveate.mechanisms.cbam import CBAM
from foveate.mechanisms.channel import ChannelAttention
from foveate.mechanisms.coordinate import CoordinateAttention
from foveate.mechanisms.eca import ECA
from foveate.mechanisms.residual_cbam import ResidualCBAM
from foveate.mechanisms.se import SE
from foveate.mechanisms.spatial import SpatialAttention
from foveate.spec import Mechanism

Modules: TypeAlias = dict[str, Any]
GateClass = TypeVar("GateClass", bound=type[nn.Module])

POOLS = {("avg",): (True, False), ("max",): (False, True), ("avg", "max"): (True, True), ("max", "avg"): (True, True)}
NO_CHANNEL_GATE = (None, None, None, None, None, False, False)

_gates: set[type[nn.Module]] = set()


class Unfit(Exception):
    """No kernel fits; the message says why."""


class Work(NamedTuple):
    """An operation with its arguments after x, and the batch norm whose batch statistics it uses."""

    operation: ops.Operation
    args: tuple[Any, ...]
    norm: nn.BatchNorm2d | None = None


def computes(gate: GateClass) -> GateClass:
    """Mark a class as what the kernels compute: x * sigmoid(logits), moved towards 1 by its `blend`."""
    _gates.add(gate)
    return gate


def is_watched(layer: nn.Module) -> bool:
    """Return whether a layer has hooks, or a forward other than its class's."""
    state = layer.__dict__
    hooks = state["_forward_hooks"] or state["_forward_pre_hooks"] or state["_backward_hooks"] or state["_backward_pre_hooks"]
    return bool(hooks) or "forward" in state


def work(mechanism: Mechanism, modules: Modules) -> Work:
    """Return what computes the mechanism over the modules of its parts. Raises Unfit."""
    make = _TABLE.get(type(mechanism))
    if make is None:
        raise Unfit("there is no kernel for it")
    return make(mechanism, modules)


def inner(mechanism: Mechanism, p: Any) -> Sequence[tuple[Mechanism, Any]]:
    """Return the mechanisms, with their parts, that one without a kernel of its own is made of."""
    if type(mechanism) is CBAM and mechanism.order == "spatial-channel":
        return [(mechanism.spatial, p.spatial), (mechanism.channel, p.channel)]
    if type(mechanism) is ResidualCBAM:
        return [(mechanism.cbam, p.cbam)]
    return ()


def _channel_gate(mechanism: Any, modules: Modules) -> tuple[Any, ...]:
    pools = POOLS.get(mechanism.pools)
    if pools is None:
        raise Unfit(f"no kernel pools by {' and '.join(mechanism.pools)}")
    return (*_mlp(modules), *pools)


def _mlp(modules: Modules) -> tuple[Any, ...]:
    return (*_convolution(modules["reduce"], 1), *_convolution(modules["expand"], 1), _blend(modules["gate"]))


def _spatial_gate(modules: Modules) -> tuple[tuple[Any, ...], nn.BatchNorm2d | None]:
    convolution, blend = _convolution(modules["conv"]), _blend(modules["gate"])
    norm = modules.get("norm")
    if norm is None:
        return (*convolution, None, None, None, None, blend, 0.0, False), None
    *weights, eps, training = _norm(norm)
    return (*convolution, *weights, blend, eps, training), norm if training else None


def _se(mechanism: Any, modules: Modules) -> Work:
    return Work(ops.channel_spatial, (*_mlp(modules), True, False))


def _eca(mechanism: Any, modules: Modules) -> Work:
    weight, bias = _channel_convolution(modules["conv"])
    if bias is not None:
        raise Unfit("no kernel adds a bias along the channels")
    return Work(ops.channel_spatial, (weight, None, None, None, _blend(modules["gate"]), True, False))


def _channel(mechanism: Any, modules: Modules) -> Work:
    return Work(ops.channel_spatial, _channel_gate(mechanism, modules))


def _spatial(mechanism: Any, modules: Modules) -> Work:
    spatial, norm = _spatial_gate(modules)
    return Work(ops.channel_spatial, (*NO_CHANNEL_GATE, *spatial, False), norm)


def _cbam(mechanism: Any, modules: Modules) -> Work:
    spatial, norm = _spatial_gate(modules["spatial"]._modules)
    channel = _channel_gate(mechanism, modules["channel"]._modules)
    return Work(ops.channel_spatial, (*channel, *spatial, mechanism.order == "parallel"), norm)


def _coordinate(mechanism: Any, modules: Modules) -> Work:
    norm = modules["norm"]
    *weights, eps, training = _norm(norm)
    return Work(
        ops.coordinate,
        (
            *_convolution(modules["squeeze"], 1),
            *weights,
            *_convolution(modules["row"], 1),
            *_convolution(modules["column"], 1),
            _blend(modules["row_gate"]),
            _blend(modules["column_gate"]),
            eps,
            training,
            mechanism.activation == "hardswish",
        ),
        norm if training else None,
    )


_TABLE: dict[type[Mechanism], Callable[[Any, Modules], Work]] = {
    SE: _se,
    ECA: _eca,
    ChannelAttention: _channel,
    SpatialAttention: _spatial,
    CBAM: _cbam,
    CoordinateAttention: _coordinate,
}


def _convolution(layer: nn.Module, kernel: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a convolution with "same" padding and nothing else. Raises Unfit."""
    state = _plain(layer, nn.Conv2d)
    size = state["kernel_size"][0] if kernel is None else kernel
    if _settings(state) != ((size, size), (1, 1), (size // 2, size // 2), (1, 1), 1, "zeros"):
        raise Unfit(f"a convolution was changed: {layer}")
    return _weights(state)


def _channel_convolution(layer: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Do the same for a convolution along the channels."""
    state = _plain(layer, nn.Conv1d)
    (size,) = state["kernel_size"]
    if _settings(state) != ((size,), (1,), (size // 2,), (1,), 1, "zeros"):
        raise Unfit(f"a convolution was changed: {layer}")
    return _weights(state)


def _settings(state: dict[str, Any]) -> tuple[Any, ...]:
    return state["kernel_size"], state["stride"], state["padding"], state["dilation"], state["groups"], state["padding_mode"]


def _weights(state: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    weight = state["_parameters"].get("weight")
    if weight is None:
        raise Unfit("weights that are no parameters")
    return weight, state["_parameters"]["bias"]


def _norm(layer: nn.Module) -> tuple[Any, ...]:
    """Return weight, bias, running mean and variance, eps, and whether the batch's statistics are used instead. Raises Unfit."""
    state = _plain(layer, nn.BatchNorm2d)
    parameters, buffers = state["_parameters"], state["_buffers"]
    weight, bias, mean, var = parameters.get("weight"), parameters.get("bias"), buffers["running_mean"], buffers["running_var"]
    if weight is None or bias is None:
        raise Unfit("a batch norm without weights")
    if state["training"] or mean is None:
        return weight, bias, None, None, state["eps"], True
    return weight, bias, mean, var, state["eps"], False


def _blend(gate: nn.Module) -> Tensor | None:
    state = _plain(gate)
    parameters = state["_parameters"]
    return parameters["blend"] if "blend" in parameters else state["blend"]


def _plain(layer: nn.Module, kind: type[nn.Module] | None = None) -> dict[str, Any]:
    """Return the attributes of a layer that nothing was added to: exactly of that kind (else a gate), no hooks. Raises Unfit."""
    state = layer.__dict__
    if type(layer) is not kind if kind else type(layer) not in _gates:
        raise Unfit(f"a {type(layer).__name__} in the place of a {kind.__name__ if kind else 'gate'}")
    if is_watched(layer):
        raise Unfit(f"hooks on a {type(layer).__name__}")
    return state
