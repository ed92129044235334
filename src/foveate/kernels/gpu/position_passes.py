"""Triton kernels that reduce the channels of each position. A program reads all channels of a few positions."""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from foveate.kernels.gpu.arithmetic import aligned, larger, peak_of, piece_of, places, position_sigmoid


@triton.jit
def look(
    x,
    channel,
    maps,
    C,
    P,
    scale,
    BACKWARDS: tl.constexpr,
    LAST: tl.constexpr,
    C_ALIGN: tl.constexpr,
    P_ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Write the maximum and the mean over the channels, of x or of x * channel gate, to `maps` [samples][2][P]."""
    C, P = aligned(C, C_ALIGN), aligned(P, P_ALIGN)
    program = tl.num_programs(0) - 1 - tl.program_id(0) if BACKWARDS else tl.program_id(0)
    n, p = piece_of(program, P, BLOCK_P)
    total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    peak = tl.full((BLOCK_C, BLOCK_P), float("-inf"), tl.float32)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        there = (c < C)[:, None] & (p < P)[None, :]
        v = tl.load(x + places(n, c, p, C, P, LAST), mask=there, other=0.0).to(tl.float32)
        if channel is not None:
            v *= (scale * tl.load(channel + n * C + c, mask=c < C, other=0.0))[:, None]
        total += v
        peak = larger(peak, tl.where(there, v, float("-inf")))
    tl.store(maps + n * 2 * P + p, peak_of(peak, 0), mask=p < P)
    tl.store(maps + (n * 2 + 1) * P + p, tl.sum(total, axis=0) / C, mask=p < P)


@triton.jit
def position_sums(
    x,
    dy,
    channel,
    peaks,
    of_peaks,
    maps,
    logits,
    mean,
    variance,
    weight,
    bias,
    d_logits,
    position_ties,
    d_channel,
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
    """Write the gradients of the normed logits and the ties of the maxima [samples][P].

    With a channel gate also its gradient, and the ties of the channels' peaks, summed over the positions of this
    program: [2][samples][programs of a sample][C], or [1]... without peaks.
    """
    C, P = aligned(C, C_ALIGN), aligned(P, P_ALIGN)
    n, p = piece_of(tl.program_id(0), P, BLOCK_P)
    sigma = position_sigmoid(logits, n, p, P, mean, variance, weight, bias, eps)
    top = tl.load(maps + n * 2 * P + p, mask=p < P, other=0.0)
    total = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    ties = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        there = (c < C)[:, None] & (p < P)[None, :]
        at = places(n, c, p, C, P, LAST)
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        u = v * tl.load(dy + at, mask=there, other=0.0).to(tl.float32)
        seen = v
        if channel is not None:
            by_channel = tl.where(there, u * (scale * sigma)[None, :], 0.0)
            here = d_channel + tl.program_id(0).to(tl.int64) * C + c
            tl.store(here, tl.sum(by_channel, axis=1), mask=c < C)
            if peaks is not None:
                peak = tl.load(peaks + n * of_peaks + c, mask=c < C, other=0.0)
                count = tl.sum(tl.where(there & (v == peak[:, None]), 1.0, 0.0), axis=1)
                tl.store(here + tl.num_programs(0).to(tl.int64) * C, count, mask=c < C)
            gate = (scale * tl.load(channel + n * C + c, mask=c < C, other=0.0))[:, None]
            u *= gate
            if SEQUENTIAL:
                seen = v * gate
        total += u
        ties += tl.where(there & (seen == top[None, :]), 1.0, 0.0)
    tl.store(d_logits + n * P + p, scale * tl.sum(total, axis=0) * sigma * (1.0 - sigma), mask=p < P)
    tl.store(position_ties + n * P + p, tl.sum(ties, axis=0), mask=p < P)


@triton.jit
def convolve(maps, weight, bias, logits, H, W, K: tl.constexpr, BLOCK: tl.constexpr):
    """Write the convolution of the two maps of each sample, padded with zeros, to `logits` [samples][H W]."""
    n, p = piece_of(tl.program_id(0), H * W, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for tap in range(K * K):
        row, column = p // W + tap // K - K // 2, p % W + tap % K - K // 2
        there = (p < H * W) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        for m in tl.static_range(2):
            v = tl.load(maps + (n * 2 + m) * H * W + row * W + column, mask=there, other=0.0)
            total += v * tl.load(weight + m * K * K + tap).to(tl.float32)
    if bias is not None:
        total += tl.load(bias).to(tl.float32)
    tl.store(logits + n * H * W + p, total, mask=p < H * W)


@triton.jit
def convolve_back(d_logits, weight, position_ties, d_maps, C, H, W, K: tl.constexpr, BLOCK: tl.constexpr):
    """Write the gradient of one entry of x through each map to `d_maps` [samples][2][H W]."""
    n, p = piece_of(tl.program_id(0), H * W, BLOCK)
    by_peak = tl.zeros((BLOCK,), tl.float32)
    by_mean = tl.zeros((BLOCK,), tl.float32)
    for tap in range(K * K):
        row, column = p // W - tap // K + K // 2, p % W - tap % K + K // 2
        there = (p < H * W) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        d = tl.load(d_logits + n * H * W + row * W + column, mask=there, other=0.0)
        by_peak += d * tl.load(weight + tap).to(tl.float32)
        by_mean += d * tl.load(weight + K * K + tap).to(tl.float32)
    ties = tl.load(position_ties + n * H * W + p, mask=p < H * W, other=1.0)
    tl.store(d_maps + n * 2 * H * W + p, by_peak / ties, mask=p < H * W)
    tl.store(d_maps + (n * 2 + 1) * H * W + p, by_mean / C, mask=p < H * W)


@triton.jit
def convolve_weights(maps, d_logits, d_weight, H, W, K: tl.constexpr, BLOCK: tl.constexpr):
    """Write the gradient of one weight of the convolution, from one sample, to `d_weight` [samples][2 K K]."""
    n = tl.program_id(0).to(tl.int64)
    m, tap = tl.program_id(1) // (K * K), tl.program_id(1) % (K * K)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, H * W, BLOCK):
        p = start + tl.arange(0, BLOCK)
        row, column = p // W + tap // K - K // 2, p % W + tap % K - K // 2
        there = (p < H * W) & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        v = tl.load(maps + (n * 2 + m) * H * W + row * W + column, mask=there, other=0.0)
        total += v * tl.load(d_logits + n * H * W + p, mask=p < H * W, other=0.0)
    tl.store(d_weight + n * tl.num_programs(1) + tl.program_id(1), tl.sum(total, axis=0))
