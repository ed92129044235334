"""What the Triton kernels share: places in a map, maxima that keep a NaN, activations, and the gate of a position."""

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

# The numbers of the activations in `layer`; those of `finished` are in foveate.kernels.finish.
RELU, SIGMOID, HARD_SIGMOID = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def aligned(size, ALIGN: tl.constexpr):
    """Return a size that ALIGN divides, in a form from which Triton knows it, and so reads several values at once."""
    return size // ALIGN * ALIGN


@triton.jit
def places(n, c, p, C, P, LAST: tl.constexpr):
    """Return where the channels c and positions p of sample n lie, as (channels, positions); LAST: channels last."""
    return n * C * P + (c[:, None] + p[None, :] * C if LAST else c[:, None] * P + p[None, :])


@triton.jit
def piece_of(program, size, BLOCK: tl.constexpr):
    """Return the sample of a program, and its piece of an axis of that size: BLOCK places."""
    blocks = tl.cdiv(size, BLOCK)
    return (program // blocks).to(tl.int64), program % blocks * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def tile_of(program, down, across, DOWN: tl.constexpr, ACROSS: tl.constexpr):
    """Return the sample of a program, and its pieces of two axes of these sizes: DOWN and ACROSS places."""
    rows, columns = tl.cdiv(down, DOWN), tl.cdiv(across, ACROSS)
    n = (program // (columns * rows)).to(tl.int64)
    row, column = program // columns % rows, program % columns
    return n, row * DOWN + tl.arange(0, DOWN), column * ACROSS + tl.arange(0, ACROSS)


@triton.jit
def line_places(n, c, h, w, C, H, W, LAST: tl.constexpr):
    """Return the same for rows h and columns w, as (channels, rows, columns)."""
    p = h[None, :, None] * W + w[None, None, :]
    return n * C * H * W + (c[:, None, None] + p * C if LAST else c[:, None, None] * (H * W) + p)


@triton.jit
def larger(a, b):
    """Return the larger value, NaN where one is NaN."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def peak_of(values, AXIS: tl.constexpr):
    """Return the maximum along an axis, NaN where a value is NaN; `tl.max` alone may lose a NaN."""
    spoilt = tl.max((values != values).to(tl.int32), axis=AXIS)
    return tl.where(spoilt > 0, float("nan"), tl.max(values, axis=AXIS))


@triton.jit
def sigmoid(z):
    """Return the sigmoid."""
    return 1.0 / (1.0 + tl.exp(-z))


@triton.jit
def hard_sigmoid(z):
    """Return relu6(z + 3) / 6, with a NaN kept."""
    raised = tl.where(z + 3.0 < 0.0, 0.0, z + 3.0)
    return tl.where(raised > 6.0, 6.0, raised) / 6.0


@triton.jit
def finished(v, ACTIVATION: tl.constexpr, slope):
    """Return the activation of a block, by its number in `foveate.kernels.finish.ACTIVATIONS`."""
    if ACTIVATION == 1:
        v = tl.where(v < 0.0, 0.0, v)
    elif ACTIVATION == 2:
        v = tl.where(v < 0.0, 0.0, tl.where(v > 6.0, 6.0, v))
    elif ACTIVATION == 3:
        v = tl.where(v > 0.0, v, v * slope)
    elif ACTIVATION == 4:
        v = v * sigmoid(v)
    elif ACTIVATION == 5:
        v = v * hard_sigmoid(v)
    return v


@triton.jit
def normed(z, mean, variance, weight, bias, at, there, eps):
    """Return the batch norm of z with the statistics and weights at the place `at`; z itself without a norm."""
    if mean is not None:
        inverse = 1.0 / tl.sqrt(tl.load(variance + at, mask=there, other=1.0).to(tl.float32) + eps)
        factor = tl.load(weight + at, mask=there, other=0.0).to(tl.float32) * inverse
        centred = z - tl.load(mean + at, mask=there, other=0.0).to(tl.float32)
        z = centred * factor + tl.load(bias + at, mask=there, other=0.0).to(tl.float32)
    return z


@triton.jit
def position_sigmoid(logits, n, p, P, mean, variance, weight, bias, eps):
    """Return the sigmoids of the positions p of sample n, from their logits before the norm."""
    z = tl.load(logits + n * P + p, mask=p < P, other=0.0)
    return sigmoid(normed(z, mean, variance, weight, bias, 0, True, eps))
