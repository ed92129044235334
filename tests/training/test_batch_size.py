"""One image in a batch is enough only if every batch norm sees more than one value per channel."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from foveate.data import BoxData, DigitScenesOptions, open_box_data
from foveate.errors import UsageError
from foveate.models import YOLOv4Tiny
from foveate.surgery import attach, freeze_host
from foveate.training import FitOptions, fit
from foveate.training.batch_size import check_batch_size
from training.toy import equal, state_of

ALONE = FitOptions(epochs=1, batch=1)


def pictures(count: int = 3, size: int = 8) -> Any:
    images = torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(0))
    dataset = TensorDataset(images, torch.arange(count) % 2)
    return SimpleNamespace(train=dataset, val=dataset)


def model(pooled: int = 1, frozen: bool = False) -> nn.Module:
    """Return a model whose norm sees a map of `pooled` x `pooled`."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(1, 4, 3),
        nn.AdaptiveAvgPool2d(pooled),
        nn.BatchNorm2d(4),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(4 * pooled**2, 2),
    )
    whole = nn.Sequential(*layers)
    if frozen:
        attach(whole, "se", "2", example=(1, 1, 8, 8), reduction=2)
        freeze_host(whole)
    return whole


@pytest.mark.parametrize("options", [ALONE, FitOptions(epochs=1, batch=8, fraction=0.1)], ids=["batch", "fraction"])
def test_a_norm_with_one_value_per_channel_is_refused_and_nothing_changes(options: FitOptions) -> None:
    one, random = model(), torch.get_rng_state()
    before = state_of(one)
    with pytest.raises(UsageError, match="two values or more per channel for each batch norm") as caught:
        fit(one, pictures(), options)
    assert "one image in a batch, of 8 x 8 pixels" in caught.value.received
    assert "--imgsz" in caught.value.do
    assert equal(state_of(one), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training and not module._forward_pre_hooks for module in one.modules())


@pytest.mark.parametrize(
    ("built", "options"),
    [
        ({"pooled": 2}, ALONE),
        ({"frozen": True}, ALONE),  # a frozen norm learns no statistics
        ({}, dataclasses.replace(ALONE, batch=2)),
        ({"pooled": 2}, dataclasses.replace(ALONE, multi_scale=True)),
    ],
    ids=["larger map", "held norm", "two images", "an option of detection"],
)
def test_a_batch_with_enough_values_is_accepted(built: dict[str, Any], options: FitOptions) -> None:
    assert len(fit(model(**built), pictures(), options)) == 1


def test_attention_has_norms_too() -> None:
    one = model(frozen=True)
    attach(one, "cbam", "0", example=(1, 1, 8, 8), reduction=2)
    check_batch_size(one, pictures().train, ALONE, "classify")
    attach(one, "cbam", "1", example=(1, 1, 8, 8), reduction=2)
    with pytest.raises(UsageError, match="whose map is 1 x 1"):
        check_batch_size(one, pictures().train, ALONE, "classify")


@pytest.fixture(scope="module")
def scenes() -> BoxData:
    return open_box_data(None, digits=DigitScenesOptions(canvas=64, train=10, val=10, test=10))


@pytest.mark.parametrize(("multi_scale", "batch", "fits"), [(False, 1, True), (True, 1, False), (True, 2, True)])
def test_the_smallest_of_several_sizes_decides(scenes: BoxData, multi_scale: bool, batch: int, fits: bool) -> None:
    """At 64 pixels a detector's coarse map is 2 x 2; at 32, the smallest size of a multi-scale training, 1 x 1."""
    detector, options = YOLOv4Tiny(10), FitOptions(batch=batch, multi_scale=multi_scale)
    if fits:
        check_batch_size(detector, scenes.train, options, "detect")
        return
    with pytest.raises(UsageError, match="of 32 x 32 pixels"):
        check_batch_size(detector, scenes.train, options, "detect")
