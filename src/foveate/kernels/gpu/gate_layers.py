"""Triton kernels from the pooled values of the channels to their sigmoids: layers, and a convolution along channels."""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from foveate.kernels.gpu.arithmetic import HARD_SIGMOID, RELU, hard_sigmoid, sigmoid


@triton.jit
def layer(
    given,
    weight,
    bias,
    out,
    rows,
    K,
    OUTPUTS,
    POOLS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_O: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write activation(sum over the pools of (weight z + bias)) to `out` [rows][OUTPUTS], from z [rows][POOLS][K].

    All pools share the layer, so `given`, which is z, is summed first.
    """
    blocks = tl.cdiv(OUTPUTS, BLOCK_O)
    m = tl.program_id(0) // blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tl.program_id(0) % blocks * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        there = (m < rows)[:, None] & (k < K)[None, :]
        z = tl.load(given + m[:, None] * POOLS * K + k[None, :], mask=there, other=0.0)
        for pool in tl.static_range(1, POOLS):
            z += tl.load(given + (m[:, None] * POOLS + pool) * K + k[None, :], mask=there, other=0.0)
        w = tl.load(weight + o[None, :] * K + k[:, None], mask=(o < OUTPUTS)[None, :] & (k < K)[:, None], other=0.0)
        total = tl.dot(z, w.to(tl.float32), total, input_precision="ieee")
    if bias is not None:
        total += POOLS * tl.load(bias + o, mask=o < OUTPUTS, other=0.0).to(tl.float32)[None, :]
    if ACTIVATION == RELU:
        total = tl.where(total < 0.0, 0.0, total)
    elif ACTIVATION == HARD_SIGMOID:
        total = hard_sigmoid(total)
    else:
        total = sigmoid(total)
    tl.store(out + m[:, None] * OUTPUTS + o[None, :], total, mask=(m < rows)[:, None] & (o < OUTPUTS)[None, :])


@triton.jit
def along_channels(pooled, weight, channel, C, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    """Write the sigmoids of the convolution along the channels of `pooled` [samples][C]."""
    blocks = tl.cdiv(C, BLOCK)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    c = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for tap in range(SIZE):
        near = c + tap - SIZE // 2
        v = tl.load(pooled + n * C + near, mask=(c < C) & (near >= 0) & (near < C), other=0.0)
        total += v * tl.load(weight + tap).to(tl.float32)
    tl.store(channel + n * C + c, sigmoid(total), mask=c < C)
