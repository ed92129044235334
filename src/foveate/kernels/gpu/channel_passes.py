"""Triton kernels that reduce the positions of each channel. A program reads a few channels of one sample.

C and P are the channels and positions of a sample; C_ALIGN and P_ALIGN divide them. The second index of the grid
is the part of the positions, of `share` each; each part has its own result, and the sum (or the maximum) of the results
is the whole.
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from foveate.kernels.gpu.arithmetic import aligned, larger, peak_of, piece_of, places


@triton.jit
def pool(
    x,
    pooled,
    samples,
    C,
    P,
    share,
    AVERAGE: tl.constexpr,
    MAXIMUM: tl.constexpr,
    LAST: tl.constexpr,
    C_ALIGN: tl.constexpr,
    P_ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write the mean, and the maximum, of each channel to `pooled` [parts][samples][pools][C]."""
    C, P = aligned(C, C_ALIGN), aligned(P, P_ALIGN)
    n, c = piece_of(tl.program_id(0), C, BLOCK_C)
    total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    peak = tl.full((BLOCK_C, BLOCK_P), float("-inf"), tl.float32)
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, P), BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        there = (c < C)[:, None] & (p < P)[None, :]
        at = places(n, c, p, C, P, LAST)
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        if AVERAGE:
            total += v
        if MAXIMUM:
            peak = larger(peak, tl.where(there, v, float("-inf")))
    POOLS: tl.constexpr = AVERAGE + MAXIMUM
    to = pooled + (tl.program_id(1) * samples + n) * POOLS * C + c
    if AVERAGE:
        tl.store(to, tl.sum(total, axis=1) / P, mask=c < C)
    if MAXIMUM:
        tl.store(to + AVERAGE * C, peak_of(peak, 1), mask=c < C)


@triton.jit
def product_sums(
    x,
    dy,
    peaks,
    of_peaks,
    to,
    samples,
    C,
    P,
    share,
    LAST: tl.constexpr,
    C_ALIGN: tl.constexpr,
    P_ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write the sum of dy x of each channel, and how many entries equal its peak, to `to` [2][parts][samples][C].

    The peaks of two samples are `of_peaks` apart. Without peaks, `to` is [1][parts][samples][C].
    """
    C, P = aligned(C, C_ALIGN), aligned(P, P_ALIGN)
    n, c = piece_of(tl.program_id(0), C, BLOCK_C)
    total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    ties = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    peak = tl.zeros((BLOCK_C,), tl.float32)
    if peaks is not None:
        peak = tl.load(peaks + n * of_peaks + c, mask=c < C, other=0.0)
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, P), BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        there = (c < C)[:, None] & (p < P)[None, :]
        at = places(n, c, p, C, P, LAST)
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        total += v * tl.load(dy + at, mask=there, other=0.0).to(tl.float32)
        if peaks is not None:
            ties += tl.where(there & (v == peak[:, None]), 1.0, 0.0)
    here = to + (tl.program_id(1) * samples + n) * C + c
    tl.store(here, tl.sum(total, axis=1), mask=c < C)
    if peaks is not None:
        tl.store(here + tl.num_programs(1) * samples * C, tl.sum(ties, axis=1), mask=c < C)


@triton.jit
def sums_through_maps(
    x,
    channel,
    maps,
    d_maps,
    to,
    samples,
    C,
    P,
    share,
    scale,
    LAST: tl.constexpr,
    C_ALIGN: tl.constexpr,
    P_ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write what the gradient of each channel gate gets through the maps of x * gate to `to` [parts][samples][C].

    maps and d_maps are [samples][2][P]: the maximum and the mean of each position, and the gradients of one entry.
    """
    C, P = aligned(C, C_ALIGN), aligned(P, P_ALIGN)
    n, c = piece_of(tl.program_id(0), C, BLOCK_C)
    gate = scale * tl.load(channel + n * C + c, mask=c < C, other=0.0)
    total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, P), BLOCK_P):
        p = start + tl.arange(0, BLOCK_P)
        there = (c < C)[:, None] & (p < P)[None, :]
        at = places(n, c, p, C, P, LAST)
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        peak = tl.load(maps + n * 2 * P + p, mask=p < P, other=0.0)
        d_peak = tl.load(d_maps + n * 2 * P + p, mask=p < P, other=0.0)
        d_mean = tl.load(d_maps + (n * 2 + 1) * P + p, mask=p < P, other=0.0)
        highest = there & (v * gate[:, None] == peak[None, :])
        total += tl.where(there, v * (d_mean[None, :] + tl.where(highest, d_peak[None, :], 0.0)), 0.0)
    tl.store(to + (tl.program_id(1) * samples + n) * C + c, tl.sum(total, axis=1), mask=c < C)
