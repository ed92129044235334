"""A small host, and it with attention, to share and to load."""

from typing import Any

import torch

import foveate
from surgery import hosts


def network() -> Any:
    torch.manual_seed(0)
    return hosts.settle(hosts.ResNet()).eval()


def attached(mechanism: Any = "cbam") -> Any:
    model = network()
    foveate.attach(model, mechanism, start="paper", example=hosts.SHAPE, reduction=2)
    return model
