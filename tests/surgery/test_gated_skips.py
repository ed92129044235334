"""Attention that a U-Net already has on its skips is no end of a stage."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from foveate.surgery import plan

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


class Gate(nn.Module):
    """The gate of the Attention U-Net: x weighed by what the map below says of it."""

    def __init__(self, channels: int):
        super().__init__()
        self.g, self.x = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.psi = nn.Conv2d(channels, 1, 1)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.psi(torch.relu(self.g(g) + self.x(x))))


def two(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class AttentionUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.e1, self.e2, self.e3 = two(3, 8), two(8, 16), two(16, 32)
        self.u2, self.u1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.g2, self.g1 = Gate(16), Gate(8)
        self.d2, self.d1, self.out = two(32, 16), two(16, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.e1(x)
        b = self.e2(max_pool2d(a, 2))
        c = self.e3(max_pool2d(b, 2))
        u = self.u2(c)
        u = self.d2(torch.cat([self.g2(u, b), u], 1))
        v = self.u1(u)
        return self.out(self.d1(torch.cat([self.g1(v, a), v], 1)))


def test_the_ends_of_the_decoder_are_its_own_convolutions() -> None:
    planned = plan(AttentionUNet(), "se", "stage", example=(torch.rand(1, 3, 32, 32),))
    assert [site.name for site in planned.sites] == ["e1.5", "e2.5", "e3.5", "d2.5", "d1.5"]
