"""Triton kernels for rows and columns: their means, the layers between, the scaling, and the gradients of the gates.

The rows and columns of a channel are L = H + W lines, first the rows. A value for each line is stored as
[samples][C][L], the squeezed values as [samples][M][L].
"""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

from foveate.kernels.gpu.arithmetic import (
    aligned,
    finished,
    hard_sigmoid,
    line_places,
    normed,
    piece_of,
    sigmoid,
    tile_of,
)


@triton.jit
def line_means(
    x,
    lines,
    samples,
    C,
    H,
    W,
    share,
    LAST: tl.constexpr,
    C_ALIGN: tl.constexpr,
    W_ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Write the mean of each line to `lines` [parts][samples][C][L].

    The second index of the grid is the part, of `share` rows. A part writes its own rows, and its share in the columns.
    """
    C, W = aligned(C, C_ALIGN), aligned(W, W_ALIGN)
    n, c = piece_of(tl.program_id(0), C, BLOCK_C)
    w = tl.arange(0, BLOCK_W)
    to = lines + (tl.program_id(1) * samples + n) * C * (H + W) + c[:, None] * (H + W)
    columns = tl.zeros((BLOCK_C, BLOCK_W), tl.float32)
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, H), BLOCK_H):
        h = start + tl.arange(0, BLOCK_H)
        there = (c < C)[:, None, None] & (h < H)[None, :, None] & (w < W)[None, None, :]
        at = line_places(n, c, h, w, C, H, W, LAST)
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        tl.store(to + h[None, :], tl.sum(v, axis=2) / W, mask=(c < C)[:, None] & (h < H)[None, :])
        columns += tl.sum(v, axis=1)
    tl.store(to + H + w[None, :], columns / H, mask=(c < C)[:, None] & (w < W)[None, :])


@triton.jit
def squeeze_lines(
    lines,
    weight,
    bias,
    squeezed,
    C,
    M,
    L,
    BLOCK_M: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write weight (M, C) z + bias for the means z of each line to `squeezed`."""
    n, m, line = tile_of(tl.program_id(0), M, L, BLOCK_M, BLOCK_L)
    total = tl.zeros((BLOCK_M, BLOCK_L), tl.float32)
    for start in range(0, C, BLOCK_K):
        c = start + tl.arange(0, BLOCK_K)
        w = tl.load(weight + m[:, None] * C + c[None, :], mask=(m < M)[:, None] & (c < C)[None, :], other=0.0)
        z = tl.load(
            lines + n * C * L + c[:, None] * L + line[None, :], mask=(c < C)[:, None] & (line < L)[None, :], other=0.0
        )
        total = tl.dot(w.to(tl.float32), z, total, input_precision="ieee")
    if bias is not None:
        total += tl.load(bias + m, mask=m < M, other=0.0).to(tl.float32)[:, None]
    tl.store(squeezed + n * M * L + m[:, None] * L + line[None, :], total, mask=(m < M)[:, None] & (line < L)[None, :])


@triton.jit
def excite_lines(
    squeezed,
    mean,
    variance,
    norm_weight,
    norm_bias,
    row,
    row_bias,
    column,
    column_bias,
    sigmoids,
    C,
    M,
    H,
    W,
    eps,
    HARDSWISH: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Write the sigmoids of each line, from the squeezed values: norm, activation, and a layer (C, M) for each axis."""
    of_rows, of_columns, down = tl.cdiv(H, BLOCK_L), tl.cdiv(W, BLOCK_L), tl.cdiv(C, BLOCK_C)
    across = of_rows + of_columns
    n = (tl.program_id(0) // (across * down)).to(tl.int64)
    c = tl.program_id(0) // across % down * BLOCK_C + tl.arange(0, BLOCK_C)
    block = tl.program_id(0) % across
    is_row = block < of_rows
    first = tl.where(is_row, block * BLOCK_L, H + (block - of_rows) * BLOCK_L)
    line = first + tl.arange(0, BLOCK_L)
    in_axis = line < tl.where(is_row, H, H + W)
    total = tl.zeros((BLOCK_C, BLOCK_L), tl.float32)
    for start in range(0, M, BLOCK_K):
        m = start + tl.arange(0, BLOCK_K)
        z = tl.load(
            squeezed + n * M * (H + W) + m[:, None] * (H + W) + line[None, :],
            mask=(m < M)[:, None] & in_axis[None, :],
            other=0.0,
        )
        z = normed(z, mean, variance, norm_weight, norm_bias, m[:, None], (m < M)[:, None], eps)
        z = z * hard_sigmoid(z) if HARDSWISH else tl.where(z < 0.0, 0.0, z)
        at, there = c[:, None] * M + m[None, :], (c < C)[:, None] & (m < M)[None, :]
        of_row = tl.load(row + at, mask=there & is_row, other=0.0).to(tl.float32)
        of_column = tl.load(column + at, mask=there & (block >= of_rows), other=0.0).to(tl.float32)
        total = tl.dot(of_row + of_column, z, total, input_precision="ieee")
    if row_bias is not None:
        of_row = tl.load(row_bias + c, mask=(c < C) & is_row, other=0.0).to(tl.float32)
        of_column = tl.load(column_bias + c, mask=(c < C) & (block >= of_rows), other=0.0).to(tl.float32)
        total += (of_row + of_column)[:, None]
    tl.store(
        sigmoids + n * C * (H + W) + c[:, None] * (H + W) + line[None, :],
        sigmoid(total),
        mask=(c < C)[:, None] & in_axis[None, :],
    )


@triton.jit
def scale_lines(
    x,
    y,
    shortcut,
    sigmoids,
    added,
    C,
    H,
    W,
    scale,
    slope,
    ACTIVATION: tl.constexpr,
    BACKWARDS: tl.constexpr,
    LAST: tl.constexpr,
    C_ALIGN: tl.constexpr,
    W_ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Write activation(x * row gate * column gate + shortcut), or with `added` the sum with a value for each line.

    y may be x. In backward x is dy, y is dx, and `added` the gradients through the means of the lines.
    """
    C, W = aligned(C, C_ALIGN), aligned(W, W_ALIGN)
    program = tl.num_programs(0) - 1 - tl.program_id(0) if BACKWARDS else tl.program_id(0)
    n, c, h = tile_of(program, C, H, BLOCK_C, BLOCK_H)
    w = tl.arange(0, BLOCK_W)
    there = (c < C)[:, None, None] & (h < H)[None, :, None] & (w < W)[None, None, :]
    at = line_places(n, c, h, w, C, H, W, LAST)
    line = n * C * (H + W) + c[:, None] * (H + W)
    rows, of_rows = line + h[None, :], (c < C)[:, None] & (h < H)[None, :]
    columns, of_columns = line + H + w[None, :], (c < C)[:, None] & (w < W)[None, :]
    v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
    v *= (scale * tl.load(sigmoids + rows, mask=of_rows, other=0.0))[:, :, None]
    v *= (scale * tl.load(sigmoids + columns, mask=of_columns, other=0.0))[:, None, :]
    if added is not None:
        v += tl.load(added + rows, mask=of_rows, other=0.0)[:, :, None]
        v += tl.load(added + columns, mask=of_columns, other=0.0)[:, None, :]
    if shortcut is not None:
        v += tl.load(shortcut + at, mask=there, other=0.0).to(tl.float32)
    tl.store(y + at, finished(v, ACTIVATION, slope).to(y.dtype.element_ty), mask=there)


@triton.jit
def line_sums(
    x,
    dy,
    sigmoids,
    to,
    samples,
    C,
    H,
    W,
    share,
    scale,
    LAST: tl.constexpr,
    C_ALIGN: tl.constexpr,
    W_ALIGN: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Write the means of each line, and the gradients of its logits, to `to` [2][parts][samples][C][L].

    The parts are those of `line_means`.
    """
    C, W = aligned(C, C_ALIGN), aligned(W, W_ALIGN)
    n, c = piece_of(tl.program_id(0), C, BLOCK_C)
    w = tl.arange(0, BLOCK_W)
    of_columns = (c < C)[:, None] & (w < W)[None, :]
    line = c[:, None] * (H + W)
    means = to + (tl.program_id(1) * samples + n) * C * (H + W) + line
    d_logits = means + tl.num_programs(1) * samples * C * (H + W)
    lines = sigmoids + n * C * (H + W) + line
    column = tl.load(lines + H + w[None, :], mask=of_columns, other=0.0)
    total = tl.zeros((BLOCK_C, BLOCK_W), tl.float32)
    d_column = tl.zeros((BLOCK_C, BLOCK_W), tl.float32)
    first = tl.program_id(1) * share
    for start in range(first, tl.minimum(first + share, H), BLOCK_H):
        h = start + tl.arange(0, BLOCK_H)
        there = (c < C)[:, None, None] & (h < H)[None, :, None] & (w < W)[None, None, :]
        at = line_places(n, c, h, w, C, H, W, LAST)
        of_rows = (c < C)[:, None] & (h < H)[None, :]
        row = tl.load(lines + h[None, :], mask=of_rows, other=0.0)
        v = tl.load(x + at, mask=there, other=0.0).to(tl.float32)
        u = v * tl.load(dy + at, mask=there, other=0.0).to(tl.float32)
        d_row = tl.sum(u * (scale * column)[:, None, :], axis=2)
        tl.store(means + h[None, :], tl.sum(v, axis=2) / W, mask=of_rows)
        tl.store(d_logits + h[None, :], scale * d_row * row * (1.0 - row), mask=of_rows)
        total += tl.sum(v, axis=1)
        d_column += tl.sum(u * (scale * row)[:, :, None], axis=1)
    tl.store(means + H + w[None, :], total / H, mask=of_columns)
    tl.store(d_logits + H + w[None, :], scale * d_column * column * (1.0 - column), mask=of_columns)
