"""Small networks with more than one path from the input to the output: encoders with decoders, pyramids, heads."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions, each with a norm and a ReLU."""
    layers: list[nn.Module] = []
    for before, after in ((inputs, outputs), (outputs, outputs)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Two levels down and up, skips by concatenation, class scores at the end."""

    def __init__(self):
        super().__init__()
        self.e1, self.e2, self.e3, self.pool = double(3, 16), double(16, 32), double(32, 64), nn.MaxPool2d(2)
        self.u2, self.u1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.d2, self.d1, self.out = double(64, 32), double(32, 16), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.e1(x)
        b = self.e2(self.pool(a))
        y = self.d2(torch.cat([b, self.u2(self.e3(self.pool(b)))], 1))
        return self.out(self.d1(torch.cat([a, self.u1(y)], 1)))


class FCN8s(nn.Module):
    """Scores of three resolutions, added and enlarged by transposed convolutions."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3 = (self.stage(*sizes) for sizes in ((3, 8), (8, 16), (16, 24)))
        self.fc, self.score, self.score2, self.score1 = (
            nn.Conv2d(24, 32, 3, padding=1),
            nn.Conv2d(32, 5, 1),
            nn.Conv2d(16, 5, 1),
            nn.Conv2d(8, 5, 1),
        )
        self.up3, self.up2, self.up1 = (nn.ConvTranspose2d(5, 5, 2, 2) for _ in range(3))

    @staticmethod
    def stage(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        a = self.c1(x)
        b = self.c2(a)
        y = self.up3(self.score(self.fc(self.c3(b)).relu())) + self.score2(b)
        return self.up1(self.up2(y) + self.score1(a))


class TwoScores(nn.Module):
    """As in LR-ASPP: a gate from a global mean, and the sum of two layers' scores, resized to the input."""

    def __init__(self):
        super().__init__()
        self.low, self.high = double(3, 8), nn.Sequential(nn.MaxPool2d(2), *double(8, 16))
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 16, 1), nn.Sigmoid())
        self.low_score, self.high_score = nn.Conv2d(8, 5, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        high = self.high(low)
        high = interpolate(high * self.gate(high), scale_factor=2)
        return interpolate(self.low_score(low) + self.high_score(high), scale_factor=2)


class SeparateHeads(nn.Module):
    """A pyramid with a head for classes and one for boxes on each level, each of two convolutions."""

    def __init__(self):
        super().__init__()
        self.c3, self.c4 = double(3, 8), nn.Sequential(nn.MaxPool2d(2), *double(8, 16))
        self.lateral, self.up, self.p3 = nn.Conv2d(8, 16, 1), nn.Upsample(scale_factor=2), double(16, 16)
        self.classes = nn.ModuleList(self.head(4) for _ in range(2))
        self.boxes = nn.ModuleList(self.head(4) for _ in range(2))

    @staticmethod
    def head(outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, outputs, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        c3 = self.c3(x)
        c4 = self.c4(c3)
        levels = self.p3(self.lateral(c3) + self.up(c4)), c4
        found = [(classes(y), boxes(y)) for classes, boxes, y in zip(self.classes, self.boxes, levels, strict=True)]
        return [y.flatten(2) for pair in found for y in pair]


class PooledContext(nn.Module):
    """As in PSPNet: means of several sizes, resized and laid beside the map."""

    def __init__(self):
        super().__init__()
        self.body, self.conv = nn.Sequential(nn.MaxPool2d(2), *double(3, 16)), nn.Conv2d(16, 4, 1)
        self.means = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(size), nn.Conv2d(16, 4, 1)) for size in (1, 3, 6))
        self.join, self.out = double(16 + 3 * 4, 16), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        size = list(y.shape[2:])
        return self.out(self.join(torch.cat([y, *(interpolate(mean(y), size) for mean in self.means)], 1)))


class EndsInAPyramid(nn.Module):
    """A pyramid whose last convolutions are the outputs, as torchvision's backbones with FPN."""

    def __init__(self):
        super().__init__()
        self.c3, self.c4 = double(3, 8), nn.Sequential(nn.MaxPool2d(2), *double(8, 16))
        self.laterals = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1)])
        self.last = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        c3 = self.c3(x)
        p4 = self.laterals[1](self.c4(c3))
        p3 = self.laterals[0](c3) + interpolate(p4, scale_factor=2)
        return {"p3": self.last[0](p3), "p4": self.last[1](p4)}


class PaddedByHand(nn.Module):
    """Strided convolutions behind a padding of their own, as in networks that came from TensorFlow."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2 = double(3, 8), double(8, 16)
        self.pad, self.down, self.fc = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(8, 8, 3, stride=2), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.c2(self.down(self.pad(self.c1(x)))).mean((2, 3)))
