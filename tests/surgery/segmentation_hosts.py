"""Small networks with more than one path from the input to the output: encoders with decoders, pyramids, heads."""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, max_pool2d, pad


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


class Block(nn.Module):
    """Two convolutions, with a sum."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.conv1(x).relu())


class SharedHead(nn.Module):
    """As RetinaNet: a pyramid with two further levels below, and a head with the same weights for all of them."""

    def __init__(self):
        super().__init__()
        self.c3, self.c4 = double(3, 8), nn.Sequential(nn.MaxPool2d(2), *double(8, 16))
        self.laterals = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(16, 8, 1)])
        self.p3, self.p4 = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.p5, self.p6 = (nn.Conv2d(8, 8, 3, 2, 1) for _ in range(2))
        self.classes, self.boxes = (self.head(outputs) for outputs in (3, 4))

    @staticmethod
    def head(outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        c3 = self.c3(x)
        y4 = self.laterals[1](self.c4(c3))
        p4 = self.p4(y4)
        p3 = self.p3(self.laterals[0](c3) + interpolate(y4, scale_factor=2))
        p5 = self.p5(p4)
        levels = p3, p4, p5, self.p6(p5.relu())
        found = [torch.cat([self.classes(y), self.boxes(y)], 1).flatten(2) for y in levels]
        return torch.cat(found, 2)


class PooledLevels(SharedHead):
    """As Faster R-CNN on MobileNet: two levels of one resolution, and one that is only pooled."""

    def __init__(self):
        super().__init__()
        self.c4 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), Block(16), Block(16))

    def forward(self, x: Tensor) -> Tensor:
        c3 = self.c3(x)
        c4 = self.c4(c3)
        y4 = self.laterals[1](c4)
        p3, p4 = self.p3(y4 + self.laterals[1](c4)), self.p4(y4)
        return torch.cat([self.classes(y).flatten(2) for y in (p3, p4, max_pool2d(p4, 1, 2))], 2)


class OwnHeads(SharedHead):
    """A further level below, with a head of two branches for each level."""

    def __init__(self):
        super().__init__()
        self.classes, self.boxes = (nn.ModuleList(self.head(4) for _ in range(3)) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        c3 = self.c3(x)
        y4 = self.laterals[1](self.c4(c3))
        p3 = self.p3(self.laterals[0](c3) + interpolate(y4, scale_factor=2))
        levels = p3, y4, self.p5(y4)
        return [head(y) for heads in (self.classes, self.boxes) for head, y in zip(heads, levels, strict=True)]


class Auxiliary(nn.Module):
    """As FCN in training: scores from the last block, and scores from an earlier one."""

    def __init__(self):
        super().__init__()
        self.c1, self.down = double(3, 8), nn.Conv2d(8, 16, 3, 2, 1)
        self.early, self.late = nn.ModuleDict({"block": Block(16)}), nn.ModuleDict({"block": Block(16)})
        self.scores, self.auxiliary = (nn.Sequential(*double(16, 8), nn.Conv2d(8, 3, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        early = self.early["block"](self.down(self.c1(x)))
        late = self.late["block"](early)
        return {"out": self.resized(self.scores(late)), "aux": self.resized(self.auxiliary(early))}

    @staticmethod
    def resized(y: Tensor) -> Tensor:
        return interpolate(y, scale_factor=2, mode="bilinear")


class ReturnsFeatures(nn.Module):
    """Scores, and beside them the features that the scores are made of."""

    def __init__(self):
        super().__init__()
        self.c1, self.c2 = double(3, 8), nn.Sequential(nn.MaxPool2d(2), *double(8, 16))
        self.up, self.out = double(24, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c1 = self.c1(x)
        y = self.up(torch.cat([c1, interpolate(self.c2(c1), scale_factor=2)], 1))
        return self.out(y), y


class Elan(nn.Module):
    """Convolutions whose outputs are joined, as in YOLOv7 and YOLOv9."""

    def __init__(self, channels: int):
        super().__init__()
        self.cv1, self.cv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.cv3 = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return self.cv3(torch.cat([y, self.cv2(y)], 1))


class UsedOnce(nn.Module):
    """After a stem with strides, a block of a class that no other module has, then two residual blocks."""

    def __init__(self):
        super().__init__()
        self.stem, self.elan = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)), Elan(8)
        self.down, self.first, self.last, self.fc = nn.Conv2d(8, 8, 3, 2, 1), Block(8), Block(8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.first(self.down(self.elan(self.stem(x))))).mean((2, 3)))


class PaddedBlock(Block):
    """A block whose convolutions are padded by hand, as in networks that came from TensorFlow."""

    def forward(self, x: Tensor) -> Tensor:
        y = conv2d(pad(x, (1, 1, 1, 1)), self.conv1.weight)
        return x + conv2d(pad(y, (1, 1, 1, 1)), self.conv2.weight)


class PaddedTiny(nn.Module):
    """Padded blocks on maps down to 2 x 2: a padding to 4 x 4, of which 2 x 2 is left, is no new resolution."""

    def __init__(self):
        super().__init__()
        down = nn.Conv2d(3, 8, 3, 16, 1), nn.Conv2d(8, 8, 3, 2, 1)
        blocks = [PaddedBlock(8) for _ in range(3)]
        self.body, self.fc = nn.Sequential(down[0], *blocks[:1], blocks[1], down[1], blocks[2]), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x).mean((2, 3)))


class PoolsWithoutStride(nn.Module):
    """As YOLOv9: a mean of 2 x 2 with stride 1 before the convolution with a stride."""

    def __init__(self):
        super().__init__()
        self.c1, self.pool, self.down = double(3, 8), nn.AvgPool2d(2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.c2, self.fc = double(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.c2(self.down(self.pool(self.c1(x)))).mean((2, 3)))


class SumsInForward(nn.Module):
    """Residual sums that no module makes, at two resolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.down, self.fc = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 2)
        self.blocks, self.more = (nn.ModuleList(self.branch() for _ in range(2)) for _ in range(2))

    @staticmethod
    def branch() -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        x = self.down(x)
        for block in self.more:
            x = torch.relu(x + block(x))
        return self.fc(x.mean((2, 3)))


class Inverted(nn.Module):
    """Inverted residual blocks in one forward: a wide map, a depthwise convolution with a stride, a narrow map."""

    def __init__(self):
        super().__init__()
        self.wide1, self.depth1, self.project1 = self.layers(3, 2)
        self.wide2, self.depth2, self.project2 = self.layers(8, 2)
        self.fc = nn.Linear(8, 2)

    @staticmethod
    def layers(inputs: int, stride: int) -> tuple[nn.Module, nn.Module, nn.Module]:
        return nn.Conv2d(inputs, 24, 1), nn.Conv2d(24, 24, 3, stride, 1, groups=24), nn.Conv2d(24, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project1(self.depth1(self.wide1(x).relu()).relu())
        return self.fc(self.project2(self.depth2(self.wide2(x).relu()).relu()).mean((2, 3)))
