"""Where "stage" and "residual" put attention in networks with more than one path, against tables made by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from foveate.errors import UsageError
from foveate.surgery import attach, detach, plan
from foveate.surgery.core.flow import Flow
from foveate.surgery.torch.host import TorchHost
from last_layers import wake
from surgery import hosts
from surgery import segmentation_hosts as networks

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")

STAGE: list[tuple[type[nn.Module], list[str]]] = [
    (networks.UNet, ["e1.5", "e2.5", "e3.5", "d2.5", "d1.5"]),
    (networks.FCN8s, ["c2.1", "c3.1", "fc"]),
    (networks.TwoScores, ["low.5", "high.6"]),
    (networks.SeparateHeads, ["c3.5", "c4.6", "p3.5"]),
    (networks.PooledContext, ["body.6", "join.5"]),
    (networks.PaddedByHand, ["c1.5", "c2.5"]),
    (networks.EndsInAPyramid, ["c3.5", "laterals.1", "laterals.0"]),
    (networks.SharedHead, ["c3.5", "laterals.1", "p4", "p3", "p5", "p6"]),
    (networks.PooledLevels, ["c3.5", "c4.2", "p3", "p4"]),
    (networks.OwnHeads, ["c3.5", "laterals.1", "p3", "p5"]),
    (networks.Auxiliary, ["c1.5", "late.block"]),
    (networks.ReturnsFeatures, ["c1.5", "c2.6", "up.5"]),
    (networks.UsedOnce, ["elan", "last"]),
    (networks.PaddedTiny, ["body.2", "body.4"]),
    (networks.PoolsWithoutStride, ["c1.5", "c2.5"]),
    (networks.SumsInForward, ["blocks.1.3", "more.1.3"]),
    (networks.Inverted, ["project1", "project2"]),
]
RESIDUAL = {networks.PooledLevels, networks.Auxiliary, networks.UsedOnce, networks.PaddedTiny, networks.SumsInForward}


def names(model: nn.Module, where: str, shape: tuple[int, ...] = (1, 3, 64, 64)) -> list[str]:
    return [site.name for site in plan(model, "eca", where, example=shape).sites]


@pytest.mark.parametrize(("host", "sites"), STAGE)
def test_stage_finds_every_level_of_both_sides(host: type[nn.Module], sites: list[str]) -> None:
    assert names(host(), "stage") == sites


@pytest.mark.parametrize("host", [host for host, _ in STAGE if host not in RESIDUAL])
def test_merged_resolutions_are_no_residual_additions(host: type[nn.Module]) -> None:
    with pytest.raises(UsageError, match="where='stage'"):
        plan(host(), "eca", example=(1, 3, 64, 64))


def test_a_backbone_with_a_pyramid() -> None:
    from torchvision.models.detection import backbone_utils

    model = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d)
    assert names(model, "stage", (1, 3, 128, 128)) == [
        *(f"body.layer{n}.1" for n in range(1, 5)),
        *(f"fpn.inner_blocks.{n}.0" for n in (2, 1, 0)),
    ]
    assert all(name.startswith("body.layer") for name in names(model, "residual", (1, 3, 128, 128)))


@pytest.mark.parametrize("host", [host for host, _ in STAGE if host is not networks.ReturnsFeatures])
def test_no_site_is_an_output_and_each_lies_on_the_way_to_one(host: type[nn.Module]) -> None:
    model, x = hosts.settle(host()), torch.randn(2, 3, 64, 64)
    outputs = [leaf.clone() for leaf in tree_leaves(hosts.run(model, x))]
    made: dict[str, Tensor] = {}
    planned = attach(model, "cbam", "stage", example=(1, 3, 64, 64))
    for site in planned.sites:
        assert site.shape[2:] != (1, 1)
        model.get_submodule(site.name).register_forward_hook(lambda *call, name=site.name: made.update({name: call[2]}))
    again: list[Any] = tree_leaves(hosts.run(model, x))
    assert all(torch.equal(one, other) for one, other in zip(outputs, again, strict=True))
    assert not any(made[site.name] is output for site in planned.sites for output in again)
    wake(model)
    assert not all(
        torch.equal(one, other) for one, other in zip(outputs, tree_leaves(hosts.run(model, x)), strict=True)
    )
    detach(model)


class Gated(nn.Module):
    """A map times what `gate` makes of it."""

    def __init__(self, gate: Callable[[Tensor], Tensor]):
        super().__init__()
        self.conv, self.weigh, self.gate = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return (x * self.gate(self.weigh(x))).mean((2, 3))


@pytest.mark.parametrize(
    ("gate", "is_gate"),
    [
        (torch.sigmoid, True),
        (lambda y: y.mean((2, 3), keepdim=True), True),
        (lambda y: y.mean(1, keepdim=True), True),
        (lambda y: torch.softmax(y, 1), True),
        (torch.relu, False),
        (lambda y: y, False),
    ],
)
def test_what_only_weighs_a_map_is_a_gate(gate: Callable[[Tensor], Tensor], is_gate: bool) -> None:
    selector = TorchHost(Gated(gate)).read((1, 3, 8, 8))
    (made,) = [call.value for call in selector.trace.calls if call.name == "weigh"]
    assert (made in Flow(selector.trace).used) is not is_gate


def test_a_thousand_steps_after_the_last_layer() -> None:
    class Net(hosts.ResNet):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            for _ in range(1500):
                y = y + 1
            return y

    assert len(plan(Net(), "se", "stage", example=hosts.SHAPE, reduction=2).sites) > 1
