"""Structured pruning halves a site and its attention together; the model runs, attached or baked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.errors import UsageError
from surgery import hosts

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


class Narrow(nn.Module):
    """Two convolutions with a norm between them, where attention sits."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.head = hosts.conv(3, 8), nn.BatchNorm2d(8), hosts.conv(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.conv(x)))


def kept(parameter: Tensor, axis: int) -> nn.Parameter:
    return nn.Parameter(parameter.detach().narrow(axis, 0, 4).clone())


def halve(model: Any, attention: Any, names: dict[str, int]) -> None:
    """Keep the first half of the 8 channels between the two convolutions."""
    norm = getattr(model.bn, "foveate_host", model.bn)
    model.conv.weight, model.head.weight = kept(model.conv.weight, 0), kept(model.head.weight, 1)
    norm.weight, norm.bias = kept(norm.weight, 0), kept(norm.bias, 0)
    norm.running_mean, norm.running_var, norm.num_features = norm.running_mean[:4], norm.running_var[:4], 4
    for name, axis in names.items():
        layer, _, kind = name.rpartition(".")
        setattr(attention.get_submodule(layer), kind, kept(attention.get_parameter(name), axis))


SE = {"reduce.weight": 1, "expand.weight": 0, "expand.bias": 0}
CASES = [
    ("se", SE),
    ("channel", SE),
    ("cbam", {f"channel.{name}": axis for name, axis in SE.items()}),
    ("eca", {}),
    ("spatial", {}),
    (
        "coordinate",
        {"squeeze.weight": 1, **{f"{line}.{kind}": 0 for line in ("row", "column") for kind in ("weight", "bias")}},
    ),
    ("cross", {f"{name}.weight": 1 for name in ("query", "key")} | {"value.weight": 1}),
]


@pytest.mark.parametrize("baked", [False, True])
@pytest.mark.parametrize(("mechanism", "names"), CASES)
def test_channels_are_those_of_the_weights(mechanism: str, names: dict[str, int], baked: bool) -> None:
    model: Any = hosts.settle(Narrow())
    foveate.attach(model, mechanism, "bn", example=hosts.SHAPE, start="paper")
    model = foveate.bake(model, example=hosts.SHAPE) if baked else model
    halve(model, model.bn.foveate_attention, names)
    if mechanism == "cross":
        value = model.bn.foveate_attention.value
        value.weight, value.bias = kept(value.weight, 0), kept(value.bias, 0)
    with_attention = hosts.run(model, hosts.image())
    assert with_attention.shape == (2, 5, 16, 16)
    plain: Any = hosts.settle(Narrow())
    halve(plain, nn.Module(), {})
    with torch.no_grad():
        for name in ("conv", "head"):
            getattr(plain, name).weight.copy_(getattr(model, name).weight)
    assert (with_attention - hosts.run(plain, hosts.image())).abs().max() > 0.01


@pytest.mark.parametrize(("mechanism", "layer", "axis"), [("se", "reduce", 1), ("gct", "alpha", 0), ("srm", "fc", 0)])
def test_channels_that_the_weights_do_not_take_are_refused(mechanism: str, layer: str, axis: int) -> None:
    module: Any = foveate.attention(mechanism, 8)
    first = module.get_submodule(layer)
    first.weight = kept(first.weight, axis)
    if getattr(first, "groups", 1) > 1:
        first.groups = 4
    assert module.channels == 4
    with pytest.raises(UsageError, match=r"\(N, 4, H, W\)"):
        module(torch.zeros(1, 8, 3, 3))


def test_an_adapter_cannot_tell_of_pruned_attention(tmp_path: Path) -> None:
    model: Any = hosts.settle(Narrow())
    foveate.attach(model, "se", "bn", example=hosts.SHAPE, reduction=2)
    halve(model, model.bn.foveate_attention, SE)
    with pytest.raises(UsageError, match=r"'bn', an SE with other weights: reduce\.weight"):
        foveate.save_adapter(model, tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mechanism", ["se", "eca", "cbam", "coordinate"])
def test_torch_pruning(mechanism: str) -> None:
    tp = pytest.importorskip("torch_pruning")
    for baked in (False, True):
        model: Any = hosts.settle(hosts.ResNet())
        foveate.attach(model, mechanism, example=hosts.SHAPE, start="paper")
        model, x = foveate.bake(model, example=hosts.SHAPE) if baked else model, hosts.image()
        before = sum(parameter.numel() for parameter in foveate.attention_parameters(model))
        importance = tp.importance.MagnitudeImportance(p=1)
        tp.pruner.BasePruner(model, x, importance=importance, pruning_ratio=0.5, ignored_layers=[model.head]).step()
        assert hosts.run(model, x).shape == (2, 5)
        after = sum(parameter.numel() for parameter in foveate.attention_parameters(model))
        assert model.layer1[0].conv1.out_channels == 4
        assert (after < before) == (
            mechanism in ("se", "coordinate")
        )  # it takes CBAM's pooling over channels for fixed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_counter_of_operations_counts_the_attention_of_a_baked_model() -> None:
    thop = pytest.importorskip("thop")
    plain, model = hosts.settle(hosts.ResNet()), hosts.attached()
    counted = [
        thop.profile(net, (hosts.image(),), verbose=False)[0]
        for net in (plain, foveate.bake(model, example=hosts.SHAPE))
    ]
    assert counted[1] - counted[0] >= foveate.plan(plain, "cbam", example=hosts.image(), reduction=2).macs
