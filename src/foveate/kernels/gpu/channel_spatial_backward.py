"""Launch the passes of backward of foveate::channel_spatial. Torch's own operations do what is small."""

import torch
from torch import Tensor
from torch.nn import functional as F

from foveate.kernels.gpu.channel_passes import product_sums, sums_through_maps
from foveate.kernels.gpu.channel_spatial_forward import BLOCK, Kept, SpatialNorm, is_sequential, spatial_norm
from foveate.kernels.gpu.launches import Map, ceiling, launch, norm_gradients, power, weight_on
from foveate.kernels.gpu.position_passes import convolve_back, convolve_weights, position_sums
from foveate.kernels.gpu.whole_passes import spread_map
from foveate.kernels.signatures import ChannelSpatial

Gradients = dict[str, Tensor]


def channel_spatial_gradients(given: ChannelSpatial, on: Map, dy: Tensor, floats: Tensor, dx: Tensor) -> Gradients:
    """Write dx, and return the gradient of each weight by its name."""
    kept, found = Kept(given, on.x, floats), Gradients()
    has_channel, has_spatial = given.reduce is not given.expand, given.conv is not None
    norm, d_maps, d_channel, ties = SpatialNorm(), None, None, None
    if has_spatial:
        norm = spatial_norm(given, kept.logits)
        d_maps, d_channel, ties = _spatial(given, on, dy, kept, norm, found)
    elif has_channel:
        d_channel, ties = _channel_sums(given, on, dy, kept)
    d_mean = d_peak = None
    if d_channel is not None:
        if is_sequential(given):
            d_channel = d_channel + _through_maps(given, on, kept, d_maps)
        d_pooled = _channel(given, kept, d_channel, found)
        d_mean = d_pooled[:, 0].div_(on.positions) if given.average else None
        d_peak = None if ties is None else d_pooled[:, -1].div_(ties)
    tile = on.tile()
    channel, peaks = kept.channel if has_channel else None, _peaks(given, kept)
    maps, logits = (kept.maps, kept.logits) if has_spatial else (None, None)
    pools = (d_mean, peaks, d_peak, kept.pooled[0].numel())
    args = on.x, dy, dx, channel, *pools, maps, d_maps, logits, *norm, *on.sizes, given.scale, given.eps
    launch(spread_map, (on.tiles(tile),), *args, SEQUENTIAL=is_sequential(given), **tile)
    return found


def _peaks(given: ChannelSpatial, kept: Kept) -> Tensor | None:
    """Return the maximum of each channel, where there is one; two samples are all their pools apart."""
    return kept.pooled[:, -1] if given.maximum else None


def _channel_sums(given: ChannelSpatial, on: Map, dy: Tensor, kept: Kept) -> tuple[Tensor, Tensor | None]:
    """Return the gradient of the channel gate, and how many entries equal each maximum, where it is the only gate."""
    tile = on.tile()
    programs, parts, share = on.parts(tile)
    to = kept.pooled.new_empty((1 + given.maximum, parts, on.samples, on.channels))
    peaks = _peaks(given, kept), kept.pooled[0].numel()
    launch(product_sums, (programs, parts), on.x, dy, *peaks, to, on.samples, *on.sizes, share, **tile)
    total = to.sum(1)
    return total[0], total[1] if given.maximum else None


def _spatial(
    given: ChannelSpatial, on: Map, dy: Tensor, kept: Kept, norm: SpatialNorm, found: Gradients
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the gradients of x's entries through the maps, and what `_channel_sums` does where there is that gate."""
    has_channel = given.reduce is not given.expand
    tile = on.tile_of_positions()
    programs = ceiling(on.positions, tile["BLOCK_P"])
    d_logits, ties = torch.empty_like(kept.logits), torch.empty_like(kept.logits)
    sums = kept.logits.new_empty((1 + given.maximum, on.samples, programs, on.channels)) if has_channel else None
    channel = kept.channel if has_channel else None
    peaks = _peaks(given, kept), kept.pooled[0].numel()
    args = on.x, dy, channel, *peaks, kept.maps, kept.logits, *norm, d_logits, ties, sums, *on.sizes
    grid, sequential = (on.samples * programs,), is_sequential(given)
    launch(position_sums, grid, *args, given.scale, given.eps, SEQUENTIAL=sequential, **tile)
    if norm.mean is not None and norm.variance is not None and norm.weight is not None:
        flat = d_logits.view(1, 1, -1), kept.logits.view(1, 1, -1)
        d, found["norm_weight"], found["norm_bias"] = norm_gradients(
            *flat, norm.mean, norm.variance, norm.weight, given.eps, given.training
        )
        d_logits = d.view_as(d_logits)
    d_maps = _convolution(given, on, kept, d_logits, ties, found)
    if sums is None:
        return d_maps, None, None
    total = sums.sum(2)
    return d_maps, total[0], total[1] if given.maximum else None


def _convolution(
    given: ChannelSpatial, on: Map, kept: Kept, d_logits: Tensor, ties: Tensor, found: Gradients
) -> Tensor:
    weight, d_maps, block = weight_on(given.conv, on.x), torch.empty_like(kept.maps), min(BLOCK, power(on.positions))
    if weight is None:
        return d_maps
    size, grid = weight.shape[2], (on.samples * ceiling(on.positions, block),)
    args = d_logits, weight, ties, d_maps, on.channels, on.height, on.width
    launch(convolve_back, grid, *args, K=size, BLOCK=block)
    taps = kept.maps.new_empty((on.samples, weight.numel()))
    args = kept.maps, d_logits, taps, on.height, on.width
    launch(convolve_weights, tuple(taps.shape), *args, K=size, BLOCK=block)
    found["conv"], found["conv_bias"] = taps.sum(0), d_logits.sum()
    return d_maps


def _through_maps(given: ChannelSpatial, on: Map, kept: Kept, d_maps: Tensor | None) -> Tensor:
    tile = on.tile()
    programs, parts, share = on.parts(tile)
    to = kept.channel.new_empty((parts, *kept.channel.shape))
    args = on.x, kept.channel, kept.maps, d_maps, to, on.samples, *on.sizes, share, given.scale
    launch(sums_through_maps, (programs, parts), *args, **tile)
    return to.sum(0)


def _channel(given: ChannelSpatial, kept: Kept, d_gate: Tensor, found: Gradients) -> Tensor:
    """Return the gradients of the pooled values (samples, pools, C), from those of the gate."""
    sigma, channels = kept.channel, kept.channel.shape[1]
    if given.hard:
        d_logit = torch.where((sigma > 0) & (sigma < 1), given.scale * d_gate / 6, 0)
    else:
        d_logit = given.scale * d_gate * sigma * (1 - sigma)
    if given.expand is None:
        return _along_channels(given, kept, d_logit, found)
    expand = given.expand.float().view(channels, -1)
    if given.reduce is None:
        found["expand"], found["expand_bias"] = d_logit.T @ kept.pooled[:, 0], d_logit.sum(0)
        return (d_logit @ expand)[:, None]
    d_hidden = torch.where(kept.hidden <= 0, 0, (d_logit @ expand)[:, None])
    found["expand"], found["expand_bias"] = d_logit.T @ kept.hidden.sum(1), d_logit.sum(0) * kept.hidden.shape[1]
    found["reduce"], found["reduce_bias"] = d_hidden.flatten(0, 1).T @ kept.pooled.flatten(0, 1), d_hidden.sum((0, 1))
    return d_hidden @ given.reduce.float().view(-1, channels)


def _along_channels(given: ChannelSpatial, kept: Kept, d_logit: Tensor, found: Gradients) -> Tensor:
    weight = weight_on(given.reduce, d_logit)
    if weight is None:
        return d_logit[:, None]
    weight = weight.float().flatten()
    size = weight.numel()

    def near(values: Tensor) -> Tensor:
        return F.pad(values, (size // 2, size // 2)).unfold(1, size, 1)

    found["reduce"] = (near(kept.pooled[:, 0]) * d_logit[:, :, None]).sum((0, 1))
    return (near(d_logit) * weight.flip(0)).sum(-1)[:, None]
