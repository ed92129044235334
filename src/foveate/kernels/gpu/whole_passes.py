"""Triton kernels that write a map: y in forward, dx in backward. A program writes one tile of one sample."""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from foveate.kernels.gpu.arithmetic import aligned, finished, places, position_sigmoid, tile_of


@triton.jit
def scale_map(
    x,
    y,
    shortcut,
    channel,
    logits,
    mean,
    variance,
    weight,
    bias,
    C,
    P,
    scale,
    eps,
    slope,
    ACTIVATION: tl.constexpr,
    BACKWARDS: tl.constexpr,
    LAST: tl.constexpr,
    C_ALIGN: tl.constexpr,
    P_ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write activation(x * channel gate * position gate + shortcut); y may be x."""
    C, P = aligned(C, C_ALIGN), aligned(P, P_ALIGN)
    program = tl.num_programs(0) - 1 - tl.program_id(0) if BACKWARDS else tl.program_id(0)
    n, c, p = tile_of(program, C, P, BLOCK_C, BLOCK_P)
    there = (c < C)[:, None] & (p < P)[None, :]
    at = places(n, c, p, C, P, LAST)
    v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    if channel is not None:
        v *= (scale * tl.load(channel + n * C + c, mask=c < C, other=0.0))[:, None]
    if logits is not None:
        v *= (scale * position_sigmoid(logits, n, p, P, mean, variance, weight, bias, eps))[None, :]
    if shortcut is not None:
        v += tl.load(shortcut + at, mask=there, other=0.0).to(tl.float32)
    tl.store(y + at, finished(v, ACTIVATION, slope).to(y.dtype.element_ty), mask=there)


@triton.jit
def spread_map(
    x,
    dy,
    dx,
    channel,
    d_mean,
    peaks,
    d_peak,
    of_pools,
    maps,
    d_maps,
    logits,
    mean,
    variance,
    weight,
    bias,
    C,
    P,
    scale,
    eps,
    SEQUENTIAL: tl.constexpr,
    LAST: tl.constexpr,
    C_ALIGN: tl.constexpr,
    P_ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write dx: dy through the gates, and what comes through the pools of each channel and the maps of each position.

    d_mean, peaks and d_peak are those of the channels, of two samples `of_pools` apart. x is read only for maxima.
    """
    C, P = aligned(C, C_ALIGN), aligned(P, P_ALIGN)
    n, c, p = tile_of(tl.program_id(0), C, P, BLOCK_C, BLOCK_P)
    there = (c < C)[:, None] & (p < P)[None, :]
    at = places(n, c, p, C, P, LAST)
    d = tl.load(dy + at, mask=there, other=0.0).to(tl.float32)
    v, gate = d, 1.0
    if (peaks is not None) or (maps is not None):
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    if channel is not None:
        gate = (scale * tl.load(channel + n * C + c, mask=c < C, other=0.0))[:, None]
    if maps is not None:
        seen = v
        if SEQUENTIAL:
            seen = v * gate
        top = tl.load(maps + n * 2 * P + p, mask=p < P, other=0.0)[None, :]
        by_peak = tl.load(d_maps + n * 2 * P + p, mask=p < P, other=0.0)[None, :]
        by_mean = tl.load(d_maps + (n * 2 + 1) * P + p, mask=p < P, other=0.0)[None, :]
        through = by_mean + tl.where(seen == top, by_peak, 0.0)
        d *= (scale * position_sigmoid(logits, n, p, P, mean, variance, weight, bias, eps))[None, :]
        if SEQUENTIAL:
            d = (d + through) * gate
        elif channel is not None:
            d = d * gate + through
        else:
            d += through
    elif channel is not None:
        d *= gate
    if d_mean is not None:
        d += tl.load(d_mean + n * of_pools + c, mask=c < C, other=0.0)[:, None]
    if peaks is not None:
        peak = tl.load(peaks + n * of_pools + c, mask=c < C, other=0.0)[:, None]
        d += tl.where(v == peak, tl.load(d_peak + n * of_pools + c, mask=c < C, other=0.0)[:, None], 0.0)
    tl.store(dx + at, d.to(dx.dtype.element_ty), mask=there)
