"""Launch the passes of foveate::channel_spatial: the gates, then the scaling."""

from typing import NamedTuple

import torch
from torch import Tensor

from foveate.kernels.gpu.arithmetic import HARD_SIGMOID, RELU, SIGMOID
from foveate.kernels.gpu.channel_passes import pool
from foveate.kernels.gpu.gate_layers import along_channels, layer
from foveate.kernels.gpu.launches import Map, batch_moments, ceiling, launch, power, reported, weight_on
from foveate.kernels.gpu.position_passes import convolve, look
from foveate.kernels.gpu.whole_passes import scale_map
from foveate.kernels.signatures import ChannelSpatial

BLOCK = 256  # positions, or channels, of a program over small maps


class Finish(NamedTuple):
    """What follows the gates: the addition of a shortcut, and an activation by its number."""

    shortcut: Tensor | None = None
    activation: int = 0
    slope: float = 0.0


class Kept:
    """The values that backward needs, as parts of one tensor of `ChannelSpatial.kept` floats."""

    def __init__(self, given: ChannelSpatial, x: Tensor, floats: Tensor):
        n, c, h, w = x.shape
        pools = given.average + given.maximum
        layers = given.reduce is not None and given.expand is not None
        hidden = given.reduce.shape[0] if layers and given.reduce is not None else 0
        has_channel, has_spatial = given.reduce is not given.expand, given.conv is not None
        sizes = [(n, pools, c), (n, pools, hidden), (n, c) if has_channel else (0,)]
        sizes += [(n, 2, h * w), (n, h * w)] if has_spatial else [(0,), (0,)]
        counts = [torch.Size(size).numel() for size in sizes]
        parts = [part.view(size) for part, size in zip(floats.split(counts), sizes, strict=True)]
        self.pooled, self.hidden, self.channel, self.maps, self.logits = parts


class SpatialNorm(NamedTuple):
    """The norm of the spatial gate's logits, as the kernels take it; all None without one. The variance is biased."""

    mean: Tensor | None = None
    variance: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None


def spatial_norm(given: ChannelSpatial, logits: Tensor) -> SpatialNorm:
    """Return the norm of the logits, with the statistics of the batch when training."""
    if given.norm_weight is None:
        return SpatialNorm()
    batch = batch_moments(logits, (0, 1)) if given.training else (given.norm_mean, given.norm_var)
    return SpatialNorm(
        *batch, given.norm_weight.detach(), None if given.norm_bias is None else given.norm_bias.detach()
    )


def is_sequential(given: ChannelSpatial) -> bool:
    """Return whether the spatial gate looks at x * channel gate."""
    return given.conv is not None and given.reduce is not given.expand and not given.parallel


def find_gates(given: ChannelSpatial, on: Map, floats: Tensor) -> tuple[Kept, SpatialNorm, Tensor]:
    """Compute all but y: the kept values, the norm of the spatial logits, and the batch statistics."""
    kept, norm, statistics = Kept(given, on.x, floats), SpatialNorm(), on.x.new_empty((2, 0), dtype=torch.float32)
    if given.reduce is not given.expand:
        _pool(given, on, kept.pooled)
        _channel_gate(given, kept)
    if given.conv is not None:
        _look(given, on, kept)
        norm = spatial_norm(given, kept.logits)
        if given.training and norm.mean is not None and norm.variance is not None:
            statistics = reported(norm.mean, norm.variance, kept.logits.numel())
    return kept, norm, statistics


def apply_gates(
    given: ChannelSpatial, on: Map, kept: Kept, norm: SpatialNorm, y: Tensor, finish: Finish | None = None
) -> None:
    """Write activation(x * gates + shortcut) to y, which may be x."""
    shortcut, activation, slope = finish or Finish()
    channel = kept.channel if given.reduce is not given.expand else None
    logits = kept.logits if given.conv is not None else None
    if shortcut is not None:
        shortcut = on.of(shortcut)
    # Each pass goes through the samples in the opposite order of the one before: what was read last is in the cache.
    turned = (channel is None) != (logits is None)
    _scale(on, y, shortcut, channel, logits, norm, given.scale, given.eps, slope, activation, turned)


def finish_alone(on: Map, y: Tensor, finish: Finish) -> None:
    """Write activation(x + shortcut) to y, which may be x."""
    shortcut = None if finish.shortcut is None else on.of(finish.shortcut)
    _scale(on, y, shortcut, None, None, SpatialNorm(), 1.0, 0.0, finish.slope, finish.activation, False)


def _scale(
    on: Map,
    y: Tensor,
    shortcut: Tensor | None,
    channel: Tensor | None,
    logits: Tensor | None,
    norm: SpatialNorm,
    scale: float,
    eps: float,
    slope: float,
    activation: int,
    turned: bool,
) -> None:
    tile, given = on.tile(), (on.x, y, shortcut, channel, logits, *norm, *on.sizes, scale, eps, slope)
    launch(scale_map, (on.tiles(tile),), *given, ACTIVATION=activation, BACKWARDS=turned, **tile)


def _pool(given: ChannelSpatial, on: Map, pooled: Tensor) -> None:
    tile = on.tile()
    programs, parts, share = on.parts(tile)
    to = pooled if parts == 1 else pooled.new_empty((parts, *pooled.shape))
    args, pools = (
        (on.x, to, on.samples, *on.sizes, share),
        {"AVERAGE": int(given.average), "MAXIMUM": int(given.maximum)},
    )
    launch(pool, (programs, parts), *args, **pools, **tile)
    if parts > 1 and given.average:
        torch.sum(to[:, :, 0], 0, out=pooled[:, 0])
    if parts > 1 and given.maximum:
        torch.amax(to[:, :, -1], 0, out=pooled[:, -1])


def _channel_gate(given: ChannelSpatial, kept: Kept) -> None:
    samples, _, channels = kept.pooled.shape
    reduce, expand = weight_on(given.reduce, kept.pooled), weight_on(given.expand, kept.pooled)
    if reduce is not None and expand is None:
        block = min(BLOCK, power(channels))
        args = kept.pooled, reduce, kept.channel, channels
        launch(along_channels, (samples * ceiling(channels, block),), *args, SIZE=reduce.numel(), BLOCK=block)
        return
    values = kept.pooled
    if reduce is not None:
        bias = weight_on(given.reduce_bias, values)
        _layer(values.view(-1, 1, channels), reduce, bias, kept.hidden.view(-1, reduce.shape[0]), RELU.value)
        values = kept.hidden
    if expand is not None:
        activation = (HARD_SIGMOID if given.hard else SIGMOID).value
        _layer(values, expand, weight_on(given.expand_bias, values), kept.channel, activation)


def _layer(given: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, activation: int) -> None:
    (rows, pools, inputs), outputs = given.shape, out.shape[1]
    block_m, block_o, block_k = 16, min(64, max(16, power(outputs) // 4)), min(64, max(16, power(inputs)))
    programs = ceiling(rows, block_m) * ceiling(outputs, block_o)
    blocks = {"BLOCK_M": block_m, "BLOCK_O": block_o, "BLOCK_K": block_k}
    args = given, weight, bias, out, rows, inputs, outputs
    launch(layer, (programs,), *args, POOLS=pools, ACTIVATION=activation, **blocks)


def _look(given: ChannelSpatial, on: Map, kept: Kept) -> None:
    tile, channel = on.tile_of_positions(), kept.channel if is_sequential(given) else None
    programs = on.samples * ceiling(on.positions, tile["BLOCK_P"])
    args = on.x, channel, kept.maps, *on.sizes, given.scale
    launch(look, (programs,), *args, BACKWARDS=channel is not None, **tile)
    weight, bias = weight_on(given.conv, on.x), weight_on(given.conv_bias, on.x)
    block = min(BLOCK, power(on.positions))
    args = kept.maps, weight, bias, kept.logits, on.height, on.width
    size = given.conv.shape[2] if given.conv is not None else 1
    launch(convolve, (on.samples * ceiling(on.positions, block),), *args, K=size, BLOCK=block)
