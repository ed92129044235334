"""Turn the layers of each mechanism into the arguments of an operation; a `Reader` reads and checks the layers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from foveate.kernels import ops
from foveate.kernels.signatures import ChannelSpatial
from foveate.mechanisms.cbam import CBAM
from foveate.mechanisms.channel import ChannelAttention
from foveate.mechanisms.coordinate import CoordinateAttention
from foveate.mechanisms.eca import ECA
from foveate.mechanisms.ese import EffectiveSE
from foveate.mechanisms.gather_excite import GatherExcite
from foveate.mechanisms.gct import GCT
from foveate.mechanisms.residual_cbam import ResidualCBAM
from foveate.mechanisms.scse import SCSE
from foveate.mechanisms.se import SE
from foveate.mechanisms.simam import SimAM
from foveate.mechanisms.spatial import SpatialAttention
from foveate.mechanisms.srm import EPS, SRM
from foveate.spec import Mechanism

Weights: TypeAlias = tuple[Tensor, Tensor | None]

POOLS = {("avg",): (True, False), ("max",): (False, True), ("avg", "max"): (True, True), ("max", "avg"): (True, True)}
NO_KERNEL = "there is no kernel for it"
ONE = torch.ones(1, 1, 1)  # the weight of a convolution along the channels that leaves the means as they are
_ARGUMENTS = {Tensor, nn.Parameter, type(None), bool, float}
NO_CHANNEL_GATE = (None, None, None, None, False, False)


class Unfit(Exception):
    """No kernel fits; the message gives the reason."""


class Work(NamedTuple):
    """An operation with its arguments after x, and the batch norm whose batch statistics it uses."""

    operation: ops.Operation
    args: tuple[Any, ...]
    norm: Any = None

    def normed(self, x: Tensor) -> int:
        """Return the number of values per channel in the batch statistics."""
        return self.operation.signature(*self.args).normed(x)


class Reader(Protocol):
    """Read the layers of a binding. Each method raises Unfit for a layer that was changed after the binding made it."""

    def parts(self, holder: Any) -> Mapping[str, Any]:
        """Return the layers of a mechanism by name."""
        ...

    def convolution(self, layer: Any, kernel: int | None = None) -> Weights:
        """Return weight (outputs, inputs, k, k) and bias of a convolution with "same" padding and no other setting."""
        ...

    def channel_convolution(self, layer: Any) -> Weights:
        """Return weight (1, 1, k) and bias of a convolution along the channels."""
        ...

    def stacked_convolution(self, layer: Any) -> Tensor:
        """Return the weight (C, 1, 2, 1) of a convolution that weighs two rows of each channel, without padding."""
        ...

    def factor(self, layer: Any) -> Weights:
        """Return weight and bias of a `Scale`."""
        ...

    def norm(self, layer: Any) -> tuple[Any, ...]:
        """Return weight, bias, running mean, running variance, eps, and whether batch statistics are used instead."""
        ...

    def scale(self, gate: Any) -> float:
        """Return the number that multiplies the sigmoid of a gate."""
        ...

    def update_statistics(self, norm: Any, statistics: Tensor, count: int) -> None:
        """Update the running statistics of a norm.

        `statistics` (2, C) are the mean and the unbiased variance of a batch with `count` values per channel.
        """
        ...


def work(mechanism: Mechanism, holder: Any, read: Reader) -> Work:
    """Return the operation, with its arguments, that computes the mechanism. Raises Unfit."""
    make = _TABLE.get(type(mechanism))
    if make is None:
        raise Unfit(NO_KERNEL)
    return make(mechanism, read.parts(holder), read)


def convolutions(found: Work) -> list[Tensor]:
    """Return the weights that must have the precision of x. Raises Unfit where any argument is no plain tensor."""
    operation, args, _ = found
    if not _ARGUMENTS.issuperset(map(type, args)):
        raise Unfit("weights that are not plain tensors")
    weights = [args[index] for index in operation.convolutions if index < len(args)]
    return [weight for weight in weights if weight is not None and weight is not ONE]


def has_kernel(mechanism: Mechanism) -> bool:
    """Return whether some settings of the mechanism have a kernel."""
    return type(mechanism) in _TABLE or type(mechanism) is ResidualCBAM


def inner(mechanism: Mechanism, p: Any) -> Sequence[tuple[Mechanism, Any]]:
    """Return the inner mechanisms, with their parts, of a mechanism that has no kernel itself."""
    if type(mechanism) is CBAM and mechanism.order == "spatial-channel":
        return [(mechanism.spatial, p.spatial), (mechanism.channel, p.channel)]
    if type(mechanism) is ResidualCBAM:
        return [(mechanism.cbam, p.cbam)]
    return ()


def _channel_gate(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> tuple[Any, ...]:
    """Return the arguments of a channel gate, up to its scale."""
    pools = POOLS.get(mechanism.pools)
    if pools is None:
        raise Unfit(f"no kernel pools by {' and '.join(mechanism.pools)}")
    return (*_mlp(parts, read), *pools)


def _mlp(parts: Mapping[str, Any], read: Reader) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    return (*read.convolution(parts["reduce"], 1), *read.convolution(parts["expand"], 1))


def _common_scale(read: Reader, one: Any, other: Any) -> float:
    scale = read.scale(one)
    if read.scale(other) != scale:
        raise Unfit("two gates of different scales")
    return scale


def _spatial_gate(parts: Mapping[str, Any], read: Reader) -> tuple[tuple[Any, ...], Any]:
    convolution, norm = read.convolution(parts["conv"]), parts.get("norm")
    if norm is None:
        return (*convolution, None, None, None, None, 0.0, False), None
    *weights, eps, training = read.norm(norm)
    return (*convolution, *weights, eps, training), norm if training else None


def _se(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    if mechanism.norm:
        raise Unfit("no kernel has norms inside the channel gate")
    return Work(ops.channel_spatial, (*_mlp(parts, read), True, False, read.scale(parts["gate"])))


def _ese(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    hard = mechanism.activation == "hard_sigmoid"
    args = None, None, *read.convolution(parts["fc"], 1), True, False, read.scale(parts["gate"]), hard
    return Work(ops.channel_spatial, args)


def _eca(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    weight, bias = read.channel_convolution(parts["conv"])
    if bias is not None:
        raise Unfit("no kernel adds a bias along the channels")
    return Work(ops.channel_spatial, (weight, None, None, None, True, False, read.scale(parts["gate"])))


def _gather_excite(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    if mechanism.variant != "theta-minus" or mechanism.extent is not None:
        raise Unfit("no kernel gathers by convolutions, or over a part of the map")
    return Work(ops.channel_spatial, (ONE, None, None, None, True, False, read.scale(parts["gate"])))


def _gct(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    if mechanism.mode != "l2":
        raise Unfit("no kernel adds absolute values")
    (alpha, _), (gamma, beta) = read.factor(parts["alpha"]), read.factor(parts["gamma"])
    scale = 2 * read.scale(parts["gate"])  # 1 + tanh(z) = 2 sigmoid(2 z)
    args = ChannelSpatial(alpha, None, gamma, beta, False, False, scale, euclidean=True, pool_eps=mechanism.eps)
    return Work(ops.channel_spatial, args)


def _srm(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    fc, norm, scale = read.stacked_convolution(parts["fc"]), parts["norm"], read.scale(parts["gate"])
    weight, bias, mean, var, eps, training = read.norm(norm)
    of_norm = {"norm_weight": weight, "norm_bias": bias, "norm_mean": mean, "norm_var": var}
    more = {"eps": eps, "training": training, "deviation": True, "pool_eps": EPS}
    args = ChannelSpatial(fc, None, None, None, True, False, scale, **of_norm, **more)
    return Work(ops.channel_spatial, args, norm if training else None)


def _scse(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    if mechanism.mode not in ("max", "channel"):
        raise Unfit(f"no kernel has the mode {mechanism.mode}")
    channel = read.parts(parts["channel"])
    layers = _mlp(channel, read)
    if mechanism.mode == "channel":
        return Work(ops.channel_spatial, (*layers, True, False, read.scale(channel["gate"])))
    spatial = read.parts(parts["spatial"])
    scale = _common_scale(read, channel["gate"], spatial["gate"])
    weight, bias = read.convolution(spatial["conv"], 1)
    args = ChannelSpatial(*layers, True, False, scale, conv=weight, conv_bias=bias, greater=True)
    return Work(ops.channel_spatial, args)


def _simam(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    if read.scale(parts["gate"]) != 1:
        raise Unfit("a gate of another scale")
    more = {"deviation": True, "pool_eps": mechanism.e_lambda, "full": True}
    args = ChannelSpatial(None, None, None, None, True, False, 1.0, **more)
    return Work(ops.channel_spatial, args)


def _channel(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    return Work(ops.channel_spatial, (*_channel_gate(mechanism, parts, read), read.scale(parts["gate"])))


def _spatial(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    spatial, norm = _spatial_gate(parts, read)
    return Work(ops.channel_spatial, (*NO_CHANNEL_GATE, read.scale(parts["gate"]), False, *spatial), norm)


def _cbam(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    first, second = read.parts(parts["channel"]), read.parts(parts["spatial"])
    (spatial, norm), scale = _spatial_gate(second, read), _common_scale(read, first["gate"], second["gate"])
    args = (*_channel_gate(mechanism, first, read), scale, False, *spatial, mechanism.order == "parallel")
    return Work(ops.channel_spatial, args, norm)


def _coordinate(mechanism: Any, parts: Mapping[str, Any], read: Reader) -> Work:
    norm, scale = parts["norm"], _common_scale(read, parts["row_gate"], parts["column_gate"])
    *weights, eps, training = read.norm(norm)
    return Work(
        ops.coordinate,
        (
            *read.convolution(parts["squeeze"], 1),
            *weights,
            *read.convolution(parts["row"], 1),
            *read.convolution(parts["column"], 1),
            scale,
            eps,
            training,
            mechanism.activation == "hardswish",
        ),
        norm if training else None,
    )


_TABLE: dict[type[Mechanism], Callable[[Any, Mapping[str, Any], Reader], Work]] = {
    SE: _se,
    EffectiveSE: _ese,
    GCT: _gct,
    SRM: _srm,
    ECA: _eca,
    GatherExcite: _gather_excite,
    ChannelAttention: _channel,
    SpatialAttention: _spatial,
    SCSE: _scse,
    SimAM: _simam,
    CBAM: _cbam,
    CoordinateAttention: _coordinate,
}
