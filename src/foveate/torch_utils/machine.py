"""Measure how fast a machine runs the operations of mechanisms in torch, in less than a second."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate.speed import Speed

SECONDS = 0.2  # for each of the four measurements
_CHANNELS, _SIDE = 256, 28


@torch.inference_mode()
def measure_speed(device: str | torch.device = "cpu") -> Speed:
    """Return the speed of torch on a device, with its present number of threads.

    A channel gate of one layer on a single position gives the time of an operation without work, the same gate on a
    large map the bytes per second, a 1 x 1 convolution the multiply-adds per second, and a mean over windows the
    operations per second of a loop over single values.
    """
    layer, wide = (nn.Conv2d(channels, channels, 1, device=device) for channels in (8, _CHANNELS))

    def gate(x: Tensor) -> Tensor:
        return x * torch.sigmoid(layer(x.mean((2, 3), keepdim=True)))

    shapes = (1, 8, 1, 1), (1, 8, 316, 316), (1, _CHANNELS, _SIDE, _SIDE)
    point, large, x = (torch.rand(shape, device=device) for shape in shapes)
    call = _seconds(lambda: gate(point)) / 4

    def rate(work: int, operation: Callable[[], Tensor], calls: int = 1) -> float:
        seconds = _seconds(operation)
        return work / max(seconds - calls * call, seconds / 2)

    return Speed(
        call,
        bytes=rate(3 * large.numel() * large.element_size(), lambda: gate(large), calls=4),
        macs=rate(_CHANNELS * x.numel(), lambda: wide(x)),
        scalar=rate(49 * x.numel(), lambda: functional.avg_pool2d(x, 7, 1, 3)),
    )


def _seconds(operation: Callable[[], Tensor]) -> float:
    """Return the least time of an operation over several rounds; a round waits for the device at its end."""
    wait, count, least = _waiting(operation().device.type), 1, float("inf")
    began = time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        for _ in range(count):
            operation()
        wait()
        took = (time.perf_counter() - start) / count
        least = min(least, took)
        count = max(1, min(100, int(SECONDS / 20 / took)))
    return least


def _waiting(device: str) -> Callable[[], object]:
    return {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device, lambda: None)
