"""ResNet-FPN-CBAM: four residual blocks with attention, whose maps are upsampled to the input's size and joined."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from foveate import mechanisms
from foveate.bind.torch.attention import attention
from foveate.checks import check_least
from foveate.errors import UsageError
from foveate.mechanisms.residual_cbam import ResidualCBAM
from foveate.spec import Mechanism


class ResNetFPN4(nn.Module):
    """Dense features of a map: (N, width, H, W) -> (N, 10 * width, H, W), for any H and W.

    From a published listing, `ResnetFPN4_CBAM`, which needs H and W that 8 divides. As in the listing, only the
    attention is non-linear. For images, `channels` puts a 3 x 3 convolution from that number of channels to `width` in
    front; the listing has none.

    `block` follows the convolution of each stage. It is the listing's residual CBAM, y = z + CBAM(z) with z =
    conv3x3(x), the same with another mechanism (a name, a `Mechanism` or its class), or None for only conv3x3.
    `options` are the mechanism's.

    In its two coarsest maps, the listing's kernels are smaller than the strides (3 and 4, 5 and 8), so that some
    positions hold only a bias. A head that uses a pixel's neighbours compensates for that.

    Raises:
        UsageError: a width or channels below 1, or a block or an option that does not exist or changes the number of
            channels.
    """

    def __init__(
        self,
        width: int = 16,
        *,
        channels: int | None = None,
        block: str | Mechanism | type[Mechanism] | None = "residual_cbam",
        **options: Any,
    ):
        super().__init__()
        check_least("width", width, 1)
        if channels is not None:
            check_least("channels", channels, 1)
        mechanism = _mechanism(block, options)
        widths = (width, width, width, 2 * width, 4 * width)
        self.out_channels = 10 * width
        self.stem = nn.Identity() if channels is None else _conv3x3(channels, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                _conv3x3(inputs, outputs, stride),
                nn.BatchNorm2d(outputs),
                *(_block(mechanism, outputs) for _ in range(repeats)),
            )
            for (inputs, outputs), stride, repeats in zip(pairwise(widths), (1, 2, 2, 2), (1, 2, 2, 2), strict=True)
        )
        self.neck = nn.ModuleList(
            [
                nn.ConvTranspose2d(width, 2 * width, 3, stride=1, padding=1),
                nn.ConvTranspose2d(width, 2 * width, 3, stride=2, padding=1, output_padding=1),
                nn.ConvTranspose2d(2 * width, 2 * width, 3, stride=4, padding=1, output_padding=3),
                nn.ConvTranspose2d(4 * width, 4 * width, 5, stride=8, padding=1, output_padding=5),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the joined features of x (N, width or channels, H, W), from the finest block to the coarsest."""
        height, width = x.shape[2:]
        x = self.stem(x)
        maps: list[Tensor] = []
        for block, up in zip(self.blocks, self.neck, strict=True):
            x = block(x)
            y = up(x)
            # A stage rounds its size up, so y has H and W, or a few more rows and columns at the end. Removing them has
            # the effect of a smaller output_padding, and also works where that would be negative (H or W 1 or 2 above a
            # multiple of 8). A negative pad removes them as a slice would, but it compares no sizes, so the model can
            # be exported with free sizes.
            maps.append(functional.pad(y, (0, width - y.shape[3], 0, height - y.shape[2])))
        return torch.cat(maps, 1)


class Residual(nn.Module):
    """z + attention(z) with z = conv3x3(x), both (N, C, H, W)."""

    def __init__(self, mechanism: Mechanism, channels: int):
        super().__init__()
        self.conv = _conv3x3(channels, channels)
        self.attention = attention(mechanism, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return z + attention(z)."""
        z = self.conv(x)
        return z + self.attention(z)


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def _block(mechanism: Mechanism | None, channels: int) -> nn.Module:
    if mechanism is None:
        return _conv3x3(channels, channels)
    # it has its own convolution and residual
    return attention(mechanism, channels) if isinstance(mechanism, ResidualCBAM) else Residual(mechanism, channels)


def _mechanism(block: Any, options: dict[str, Any]) -> Mechanism | None:
    mechanism = None if block is None else mechanisms.resolve(block, **options)
    if mechanism is None and (block is not None or options):
        raise UsageError(
            expected="a block that is a mechanism's name, a Mechanism or None, and options only with a mechanism",
            received=f"block={block!r}" + (f" with {', '.join(options)}" if options else ""),
            do=f"use one of {', '.join(mechanisms.names())}",
        )
    for option in ("out_channels", "context_channels"):
        if getattr(mechanism, option, None) is not None:
            raise UsageError(
                expected="a block that keeps its channels",
                received=f"{option}={getattr(mechanism, option)}",
                do=f"leave {option} out",
            )
    return mechanism
