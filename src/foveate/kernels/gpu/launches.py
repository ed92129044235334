"""What every launch needs: a dense map with its layout, the sizes of tiles, and weights as the kernels read them."""

import math
from typing import Any

import torch
from torch import Tensor

from foveate.kernels.ops import like

ENTRIES = 2048  # in a tile: 16 for each thread of four warps
ALIGN = 16  # Triton's own greatest known divisor of a size
PROGRAMS = 264  # at least so many fill a large GPU; below it, a pass is divided into parts


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    """Run a Triton kernel; every launch goes through here."""
    run_kernel(kernel, grid, args, constants)


def run_kernel(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], constants: dict[str, Any]) -> None:
    """Run a Triton kernel. A test puts another function in this place, to compile kernels without running them."""
    kernel[grid](*args, **constants)


def ceiling(count: int, size: int) -> int:
    """Return how many pieces of that size hold so many."""
    return -(-count // size)


def power(count: int) -> int:
    """Return the least power of two that is not less."""
    return 1 << max(count - 1, 0).bit_length()


class Map:
    """A feature map where it is dense, else a dense copy, seen as samples of channels x positions."""

    def __init__(self, x: Tensor):
        dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
        self.x = x if dense else like(x).copy_(x)
        self.samples, self.channels, self.height, self.width = x.shape
        self.positions = self.height * self.width
        self.last = not self.x.is_contiguous()  # channels last
        self.sizes = (self.channels, self.positions)

    def of(self, other: Tensor) -> Tensor:
        """Return another map of this shape in the memory layout of this one."""
        return other if other.stride() == self.x.stride() else torch.empty_like(self.x).copy_(other)

    def tile(self) -> dict[str, int]:
        """Return the constants of a pass: the layout, and a tile that is long in the direction in which memory runs."""
        if self.last:
            channels = min(64, power(self.channels))
            return {**self._layout(), "BLOCK_C": channels, "BLOCK_P": min(power(self.positions), ENTRIES // channels)}
        positions = min(512, power(self.positions))
        return {**self._layout(), "BLOCK_C": min(power(self.channels), ENTRIES // positions), "BLOCK_P": positions}

    def tile_of_positions(self) -> dict[str, int]:
        """Return the constants of a pass that reads all channels of a few positions."""
        channels, positions = (128, 16) if self.last else (32, 64)
        blocks = {"BLOCK_C": min(channels, power(self.channels)), "BLOCK_P": min(positions, power(self.positions))}
        return {**self._layout(), **blocks}

    def tile_of_lines(self) -> dict[str, int]:
        """Return the constants of a pass over tiles of whole rows."""
        width, align = (
            power(self.width),
            {"C_ALIGN": math.gcd(self.channels, ALIGN), "W_ALIGN": math.gcd(self.width, ALIGN)},
        )
        if self.last:
            channels = min(32, power(self.channels), max(1, ENTRIES // width))
            rows = min(power(self.height), max(1, ENTRIES // (channels * width)))
        else:
            rows = min(power(self.height), max(1, 512 // width))
            channels = min(power(self.channels), max(1, ENTRIES // (rows * width)))
        return {"LAST": self.last, **align, "BLOCK_C": channels, "BLOCK_H": rows, "BLOCK_W": width}

    def _layout(self) -> dict[str, int]:
        align = {"C_ALIGN": math.gcd(self.channels, ALIGN), "P_ALIGN": math.gcd(self.positions, ALIGN)}
        return {"LAST": self.last, **align}

    def parts(self, tile: dict[str, int]) -> tuple[int, int, int]:
        """Return the programs of a pass over the positions of each channel, its parts, and the positions of a part."""
        return self._divided(self.positions, tile["BLOCK_C"], tile["BLOCK_P"])

    def parts_of_lines(self, tile: dict[str, int]) -> tuple[int, int, int]:
        """Return the programs of a pass over the lines of each channel, its parts, and the rows of a part."""
        return self._divided(self.height, tile["BLOCK_C"], tile["BLOCK_H"])

    def _divided(self, length: int, channels: int, block: int) -> tuple[int, int, int]:
        programs = self.samples * ceiling(self.channels, channels)
        share = ceiling(ceiling(length, ceiling(PROGRAMS, programs)), block) * block
        return programs, ceiling(length, share), share

    def tiles(self, tile: dict[str, int]) -> int:
        """Return the tiles of all samples."""
        return self.samples * ceiling(self.channels, tile["BLOCK_C"]) * ceiling(self.positions, tile["BLOCK_P"])


def weight_on(weight: Tensor | None, x: Tensor) -> Tensor | None:
    """Return a weight as the kernels read it: dense, on the device of x."""
    if weight is None:
        return None
    if weight.device != x.device:  # only `table.ONE`, which needs no copy
        return torch.ones(weight.shape, dtype=weight.dtype, device=x.device)
    return weight.detach().contiguous()


def batch_moments(raw: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance over these dimensions."""
    variance, mean = torch.var_mean(raw, dims, correction=0)
    return mean, variance


def reported(mean: Tensor, variance: Tensor, count: int) -> Tensor:
    """Return the batch statistics as the operations return them: (2, C), the mean and the unbiased variance."""
    return torch.stack((mean.reshape(-1), variance.reshape(-1) * (count / (count - 1))))


def norm_gradients(
    d: Tensor, raw: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, eps: float, training: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a batch norm's input, weight and bias; d and raw are (N, channels, values).

    Sums are in float64, and so are the statistics of a batch: what they add up to cancels.
    """
    shape = (1, -1, 1)
    if training:
        variance, mean = torch.var_mean(raw.double(), (0, 2), correction=0)
    inverse = 1 / torch.sqrt(variance.double().view(shape) + eps)
    hat, d = (raw.double() - mean.double().view(shape)) * inverse, d.double()
    by_weight, by_bias = (d * hat).sum((0, 2)), d.sum((0, 2))
    if training:
        count = d.numel() / d.shape[1]
        d = d - (by_bias / count).view(shape) - hat * (by_weight / count).view(shape)
    return (d * inverse * weight.double().view(shape)).float(), by_weight.float(), by_bias.float()
