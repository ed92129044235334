"""Small data and models that train in less than a second."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from foveate.training.fit_options import FitOptions

QUICK = FitOptions(epochs=2, batch=16, lr=0.02, seed=1)


def toy_data(train: int = 96, val: int = 40, size: int = 8, seed: int = 0) -> Any:
    """Return data of two classes, which differ in which half of the image is brighter."""
    draw = torch.Generator().manual_seed(seed)
    splits = {"train": train, "val": val, "test": val}
    return SimpleNamespace(
        classes=["below", "above"], **{name: _pictures(count, size, draw) for name, count in splits.items()}
    )


def toy_model(seed: int = 0, last: nn.Module | None = None) -> nn.Module:
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 2),
    ]
    return nn.Sequential(*layers, *([last] if last else []))


def _pictures(count: int, size: int, draw: torch.Generator) -> TensorDataset:
    labels = torch.randint(0, 2, (count,), generator=draw)
    images = torch.randn(count, 1, size, size, generator=draw)
    images[:, :, : size // 2] += labels.view(-1, 1, 1, 1).float() * 2
    return TensorDataset(images, labels)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
