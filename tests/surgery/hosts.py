"""Small hosts with unusual forwards, as in users' code, and helpers for tests with hosts."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.surgery import attach

CHILD = "foveate_attention"
SHAPE = (2, 3, 16, 16)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)


class Block(nn.Module):
    """As in ResNet: the shortcut is projected where the shape changes; one ReLU serves twice, in place."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        changed = stride > 1 or inputs != outputs
        self.shortcut = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
            if changed
            else nn.Sequential()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)


class ResNet(nn.Module):
    """Stem, two stages of two blocks, head."""

    def __init__(self, block: Callable[..., nn.Module] = Block, width: int = 8):
        super().__init__()
        self.stem = nn.Sequential(conv(3, width), nn.BatchNorm2d(width), nn.ReLU())
        self.layer1 = nn.Sequential(block(width, width), block(width, width))
        self.layer2 = nn.Sequential(block(width, 2 * width, 2), block(2 * width, 2 * width))
        self.head = nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer2(self.layer1(self.stem(x))).mean((2, 3)))


class Functional(nn.Module):
    """Only convolutions and norms are modules; ReLU and addition are functions, and the branch ends in a ReLU."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.bn = conv(3, 8), conv(8, 8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        return torch.add(x, F.relu(self.bn(self.conv2(x)))).mean((2, 3))


class Listed(nn.Module):
    """A list of convolutions that the model itself runs."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = conv(3, 8), nn.ModuleList(conv(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(F.relu(x))
        return x.mean((2, 3))


class Twice(nn.Module):
    """One block that runs twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.block = conv(3, 8), nn.Sequential(conv(8, 8), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(2):
            x = x + self.block(x)
        return x.mean((2, 3))


class InPlaceAfter(nn.Module):
    """In-place ReLUs overwrite the output of the site, and the sum."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.bn, self.relu = conv(3, 8), conv(8, 8), nn.BatchNorm2d(8), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        y = self.relu(self.bn(self.conv2(x)))
        y += x
        return F.relu_(y).mean((2, 3))


class PaddedShortcut(nn.Module):
    """The parameter-free downsample of the CIFAR ResNet: strided slices, padded channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv, self.bn = conv(3, 8), conv(8, 16, 2), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return (shortcut + self.bn(self.conv(x))).mean((2, 3))


class LayerScale(nn.Module):
    """As in ConvNeXt: NHWC inside, a learnt scale, then stochastic depth, which is an identity in eval mode."""

    def __init__(self):
        super().__init__()
        self.stem, self.dw, self.norm, self.mlp = (
            conv(3, 8),
            nn.Conv2d(8, 8, 7, padding=3, groups=8),
            nn.LayerNorm(8),
            nn.Linear(8, 8),
        )
        self.gamma, self.drop_path = nn.Parameter(torch.full((8,), 0.5)), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.mlp(self.norm(self.dw(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return (x + self.drop_path(y.mul(self.gamma.reshape(1, -1, 1, 1)))).mean((2, 3))


class ScaledAndSliced(nn.Module):
    """The branch is a slice of the output of its last module, times a number."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv1, self.conv2 = conv(3, 8), conv(8, 8), conv(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv2(self.conv1(x))
        return torch.cat([x + 0.3 * y[:, :8], y[:, 8:]], 1).mean((2, 3))


class ThreeTerms(nn.Module):
    """x + a(x) + b(x)."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv(3, 8), conv(8, 8), nn.Sequential(conv(8, 8), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (x + self.a(x) + self.b(x)).mean((2, 3))


class InnerSums(nn.Module):
    """As in Res2Net: slices that are added in turn inside one residual branch."""

    def __init__(self):
        super().__init__()
        self.stem, self.convs, self.last = conv(3, 8), nn.ModuleList(conv(4, 4) for _ in range(2)), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        a, b = F.relu(x).chunk(2, 1)
        a = self.convs[0](a)
        b = self.convs[1](a + b)
        return (x + self.last(torch.cat([a, b], 1))).mean((2, 3))


class Parallel(nn.Module):
    """As in RepVGG: equal branches are added, and none is a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = conv(3, 8), conv(8, 8), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (self.a(x) + self.b(x)).mean((2, 3))


class Merged(nn.Module):
    """As in a feature pyramid: a lateral convolution is added to an upsampled map, which is no residual addition."""

    def __init__(self):
        super().__init__()
        self.stem, self.down, self.deep = conv(3, 8), conv(8, 8, 2), conv(8, 8)
        self.up, self.lateral = nn.Upsample(scale_factor=2), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return (self.lateral(x) + self.up(self.deep(self.down(x)))).mean((2, 3))


class Plain(nn.Module):
    """As in VGG: convolutions and pooling."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(*self.stage(3, 8), *self.stage(8, 16))
        self.head = nn.Linear(16, 5)

    @staticmethod
    def stage(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            conv(inputs, outputs),
            nn.ReLU(inplace=True),
            conv(outputs, outputs),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class RunsItsChildren(nn.Module):
    """Not a container by type, but it runs all its children."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


class DictBlock(nn.ModuleDict):
    """As in DenseNet: a container by type whose own forward makes its output."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = torch.cat([x, layer(x)], 1)
        return x


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.block, self.norm = DictBlock({"a": conv(3, 4), "b": conv(7, 4)}), nn.BatchNorm2d(11)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.block(x))


def trained_resnet() -> nn.Module:
    """Return the same ResNet with random norms at each call, as if loaded from a checkpoint."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return settle(ResNet())


def settle(model: nn.Module) -> nn.Module:
    """Give norms and small scales random values, so that no branch is 0 or a copy; return the model in eval mode."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if "bias" not in name and (parameter.dim() < 2 or not parameter.any()):
                    parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
            if (
                isinstance(module, nn.BatchNorm2d)
                and module.running_mean is not None
                and module.running_var is not None
            ):
                module.running_mean.copy_(0.1 * torch.randn(module.running_mean.shape, generator=generator))
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model.eval()


def image(*shape: int) -> Tensor:
    return torch.rand(shape or SHAPE, generator=torch.Generator().manual_seed(2))


def run(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x)


def anatomy(model: nn.Module) -> dict[str, Any]:
    """Return all state of a model that attaching could change."""
    return {
        name: (
            type(module),
            sorted(vars(module)),
            list(module._modules),
            list(module._parameters),
            {key: (id(value), value._version) for key, value in module._buffers.items() if value is not None},
            [
                (id(value), value._version, value.requires_grad)
                for value in module._parameters.values()
                if value is not None
            ],
            list(module._forward_hooks.items()),
            list(module._forward_pre_hooks.items()),
            list(module._forward_hooks_with_kwargs),
            list(module._forward_hooks_always_called),
            module.training,
        )
        for name, module in model.named_modules()
    }


def attached(**options: Any) -> nn.Module:
    model = settle(ResNet())
    attach(model, "cbam", example=SHAPE, reduction=2, **options)
    return model
