"""Small networks that return images, and networks with two inputs, unpadded convolutions or batches of their own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pixel_shuffle, relu

from surgery.hosts import conv


def plain(inputs: int, outputs: int, padding: int = 1) -> nn.Sequential:
    """Two convolutions without norms."""
    layers: list[nn.Module] = []
    for before in (inputs, outputs):
        layers += [nn.Conv2d(before, outputs, 3, padding=padding), nn.ReLU()]
    return nn.Sequential(*layers)


class Block(nn.Module):
    """A residual block of two convolutions, with a convolution on the shortcut where it has a stride."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, stride, 1), conv(outputs, outputs)
        self.down = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.conv2(relu(self.conv1(x))) + self.down(x))


class Denoiser(nn.Module):
    """As DnCNN: the network makes what is added to its input; `finish` makes the output of both."""

    def __init__(self, finish: Callable[[Tensor, Tensor], object]):
        super().__init__()
        self.net, self.finish = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 3)), finish

    def forward(self, x: Tensor) -> object:
        return self.finish(x, self.net(x))


class SuperResolution(nn.Module):
    """As EDSR, with the enlarged input added to the output."""

    def __init__(self):
        super().__init__()
        self.head, self.body = conv(3, 8), nn.ModuleList([plain(8, 8) for _ in range(2)])
        self.up, self.tail = conv(8, 32), conv(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(x)
        for block in self.body:
            y = y + 0.1 * block(y)
        y = self.tail(pixel_shuffle(self.up(y), 2))
        return (y + interpolate(x, scale_factor=2, mode="bicubic")).clamp(0, 1)


class Pyramid(nn.Module):
    """As LapSRN: images of two sizes, each enlarged by a layer and corrected by another."""

    def __init__(self):
        super().__init__()
        self.head = conv(3, 8)
        self.body = nn.ModuleList([plain(8, 8) for _ in range(2)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 8, 2, 2) for _ in range(2)])
        self.enlarge = nn.ModuleList([nn.ConvTranspose2d(3, 3, 2, 2) for _ in range(2)])
        self.correct = nn.ModuleList([conv(8, 3) for _ in range(2)])

    def forward(self, x: Tensor) -> list[Tensor]:
        y, images = self.head(x), list[Tensor]()
        for body, up, enlarge, correct in zip(self.body, self.up, self.enlarge, self.correct, strict=True):
            y = up(body(y))
            x = enlarge(x) + correct(y)
            images.append(x)
        return images


class Unrolled(nn.Module):
    """Three steps that each add a correction to the image."""

    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList([nn.Sequential(conv(3, 8), Block(8, 8), conv(8, 3)) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = x + step(x)
        return x


class ImageUNet(nn.Module):
    """A U-Net of three levels. Without padding, as published, its skips are cropped; `whole` adds the input."""

    def __init__(self, padding: int = 1, whole: bool = False):
        super().__init__()
        self.e1, self.e2, self.e3 = plain(3, 8, padding), plain(8, 16, padding), plain(16, 32, padding)
        self.u2, self.u1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.d2, self.d1, self.out = plain(32, 16, padding), plain(16, 8, padding), nn.Conv2d(8, 3, 1)
        self.whole = whole

    def down(self, x: Tensor) -> list[Tensor]:
        a = self.e1(x)
        b = self.e2(max_pool2d(a, 2))
        return [a, b, self.e3(max_pool2d(b, 2))]

    def up(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        y = self.d2(beside(b, self.u2(c)))
        return self.out(self.d1(beside(a, self.u1(y))))

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(*self.down(x))
        return x + torch.tanh(y) if self.whole else y


class Siamese(ImageUNet):
    """Two images through one encoder; the decoder sees the differences."""

    def forward(self, x: Tensor, other: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.up(*((a - b).abs() for a, b in zip(self.down(x), self.down(other), strict=True)))


def beside(skip: Tensor, y: Tensor) -> Tensor:
    """Lay the middle of a skip beside a smaller map."""
    edge = (skip.shape[2] - y.shape[2]) // 2
    return torch.cat([skip[:, :, edge : edge + y.shape[2], edge : edge + y.shape[3]], y], 1)


class Encoder(nn.Module):
    """A stem and two levels of two residual blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.layer1 = nn.Sequential(Block(8, 8), Block(8, 8))
        self.layer2 = nn.Sequential(Block(8, 16, 2), Block(16, 16))


class TwoEncoders(nn.Module):
    """As for colour and thermal images: `fuse` makes the two maps of each level of what the encoders made."""

    def __init__(self, fuse: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], shared: bool = False):
        super().__init__()
        self.rgb, self.fuse, self.fc = Encoder(), fuse, nn.Linear(32, 4)
        self.thermal = self.rgb if shared else Encoder()

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        a, b = self.rgb.stem(x), self.thermal.stem(other)
        for name in ("layer1", "layer2"):
            a, b = self.fuse(getattr(self.rgb, name)(a), getattr(self.thermal, name)(b))
        return self.fc(torch.cat([a, b], 1).mean((2, 3)))


class TwoPlainEncoders(nn.Module):
    """Two encoders without blocks."""

    def __init__(self):
        super().__init__()
        self.a1, self.a2, self.b1, self.b2 = plain(3, 8), plain(8, 16), plain(3, 8), plain(8, 16)
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        a, b = self.a2(max_pool2d(self.a1(x), 2)), self.b2(max_pool2d(self.b1(other), 2))
        return self.fc(torch.cat([a, b], 1).mean((2, 3)))


class Mixed(nn.Module):
    """Two levels of plain convolutions, one of residual blocks, and one of a single convolution."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = plain(3, 8), plain(8, 16), nn.Sequential(Block(16, 32, 2), Block(32, 32))
        self.d, self.fc = nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU()), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.d(self.c(max_pool2d(self.b(max_pool2d(self.a(x), 2)), 2))).mean((2, 3)))


class ScoresThenPool(nn.Module):
    """As SqueezeNet and Network in Network: a map of class scores, and its mean."""

    def __init__(self, pool: nn.Module):
        super().__init__()
        self.a, self.b, self.scores, self.pool = plain(3, 8), plain(8, 16), nn.Conv2d(16, 10, 1), pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(relu(self.scores(self.b(max_pool2d(self.a(x), 2))))).flatten(1)


class Views(nn.Module):
    """Several views of each sample, or windows of each image, as one batch."""

    def __init__(self, windows: bool):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Block(8, 8), Block(8, 16, 2), Block(16, 16))
        self.windows, self.fc = windows, nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        if self.windows:
            x = x.unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        y = self.body(x.flatten(0, 1)).mean((2, 3))
        return self.fc(y).view(len(x), -1, 4).amax(1)


class Summed(nn.Module):
    """A map and a branch of it, added in the form that `add` writes."""

    def __init__(self, add: Callable[[Tensor, Tensor, Tensor], Tensor]):
        super().__init__()
        self.stem, self.branch, self.add, self.fc = conv(3, 8), conv(8, 8), add, nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc(self.add(x, self.branch(x), self.scale).mean((2, 3)))
