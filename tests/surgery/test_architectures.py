"""More than forty architectures without weights: attaching leaves the output equal, detaching restores the model."""

from typing import Any

import pytest
import torch
from torch import nn

from foveate.errors import UsageError
from foveate.surgery import attach, detach, plan
from last_layers import wake
from surgery import hosts

# The numbers of sites: the residual blocks in each paper's table, counted by hand, or else the resolutions.
TIMM = {
    "resnet18": 8,
    "resnet50": 16,
    "resnext50_32x4d": 16,
    "resnetv2_50": 16,
    "wide_resnet50_2": 16,
    "seresnet18": 8,
    "skresnet18": 8,
    "resnest14d": 4,
    "res2net50_26w_4s": 16,
    "regnetx_002": 13,
    "regnety_002": 13,
    "mobilenetv2_100": 10,
    "mobilenetv3_small_100": 6,
    "efficientnet_b0": 9,
    "tinynet_e": 3,
    "mnasnet_100": 10,
    "semnasnet_075": 9,
    "fbnetc_100": 15,
    "mixnet_s": 11,
    "hardcorenas_a": 5,
    "rexnet_100": 11,
    "ghostnet_100": 16,
    "repvgg_a0": 17,
    "gernet_s": 14,
    "convnext_atto": 12,
    "edgenext_xx_small": 9,
    "nfnet_l0": 12,
    "dla34": 12,
    "cspdarknet53": 23,
    "cspresnet50": 13,
    "dpn68": 22,
    "xception41": 12,
    "hrnet_w18_small": 23,
    "poolformer_s12": 24,
}
TIMM_STAGE = {"densenet121": 4, "vgg11": 4, "inception_v3": 3, "selecsls42b": 4, "lcnet_050": 5}
TORCHVISION = {
    "resnet18": 8,
    "resnet50": 16,
    "mobilenet_v2": 10,
    "mobilenet_v3_small": 6,
    "efficientnet_b0": 9,
    "regnet_y_400mf": 16,
    "mnasnet0_5": 10,
    "convnext_tiny": 18,
}
TORCHVISION_STAGE = {"densenet121": 4, "shufflenet_v2_x0_5": 3, "squeezenet1_1": 3, "googlenet": 3}
# Their blocks are those of another network here.
ALIKE = {"wide_resnet50_2", "resnext50_32x4d", "regnetx_002", "mnasnet_100", "semnasnet_075", "cspresnet50", "gernet_s"}
OPTIONS: dict[str, dict[str, Any]] = {"vgg11": {"mlp_ratio": 0.1}, "googlenet": {"init_weights": False}}
PIXELS = {"inception_v3": 96}

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def build(name: str) -> nn.Module:
    family, _, name = name.partition("/")
    if family == "timm":
        import timm

        return timm.create_model(name, **OPTIONS.get(name, {}))
    import torchvision

    return torchvision.models.get_model(name, **OPTIONS.get(name, {}))


def check(name: str, where: str, count: int) -> None:
    model = hosts.settle(build(name))
    pixels = PIXELS.get(name.partition("/")[2], 64)
    x = hosts.image(2, 3, pixels, pixels)
    before, keys = hosts.run(model, x), list(model.state_dict())
    assert torch.isfinite(before).all()
    planned = attach(model, "cbam", where, example=(1, 3, pixels, pixels))
    assert len(planned.sites) == count
    assert torch.equal(hosts.run(model, x), before)
    assert [key for key in model.state_dict() if hosts.CHILD not in key.split(".")] == keys
    wake(model)
    assert not torch.equal(hosts.run(model, x), before), "the attention is not on the path to the output"
    detach(model)
    assert torch.equal(hosts.run(model, x), before)
    assert list(model.state_dict()) == keys
    assert not any(module._forward_hooks for module in model.modules())


def test_there_are_enough() -> None:
    assert len(TIMM) + len(TIMM_STAGE) >= 30
    assert len(TORCHVISION) + len(TORCHVISION_STAGE) >= 6


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in TIMM])
@pytest.mark.reliability(6)
def test_timm_residual(name: str) -> None:
    check(f"timm/{name}", "residual", TIMM[name])


@pytest.mark.parametrize("name", TIMM_STAGE)
@pytest.mark.reliability(6)
def test_timm_stage(name: str) -> None:
    check(f"timm/{name}", "stage", TIMM_STAGE[name])


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.reliability(6)
def test_torchvision_residual(name: str) -> None:
    check(f"torchvision/{name}", "residual", TORCHVISION[name])


@pytest.mark.parametrize("name", TORCHVISION_STAGE)
@pytest.mark.reliability(6)
def test_torchvision_stage(name: str) -> None:
    check(f"torchvision/{name}", "stage", TORCHVISION_STAGE[name])


@pytest.mark.parametrize("name", ["timm/densenet121", "timm/selecsls42b", "torchvision/shufflenet_v2_x0_5"])
def test_where_no_branch_is_added_stage_is_proposed(name: str) -> None:
    with pytest.raises(UsageError, match="where='stage'"):
        plan(build(name), "se", example=(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("timm/resnet18", {"layer1.0.bn2", "layer2.0.bn2", "layer4.1.bn2"}),
        ("torchvision/resnet50", {"layer1.0.bn3", "layer3.5.bn3"}),
        ("timm/seresnet18", {"layer1.0.se"}),
        ("timm/mobilenetv2_100", {"blocks.1.1.bn3"}),
        ("timm/res2net50_26w_4s", {"layer1.0.bn3"}),
        ("torchvision/mobilenet_v2", {"features.3.conv.3"}),
    ],
)
def test_the_site_is_the_last_module_of_the_branch(name: str, where: set[str]) -> None:
    assert where <= {site.name for site in plan(build(name), "eca", example=(1, 3, 64, 64)).sites}


def depthwise_of_expanding_blocks(name: str, module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Select the activation after the depthwise convolution of inverted residuals, in all blocks but the first."""
    parts = name.split(".")
    return parts[0] == "features" and parts[2:] == ["conv", "1"] and parts[1] not in ("0", "1", "18")


@pytest.mark.parametrize(
    ("name", "mechanism", "where", "total"),
    [
        ("timm/resnet18", "se", "residual", 11_778_592),
        ("torchvision/resnet18", "cbam", "residual", 11_779_392),
        ("torchvision/resnet50", "se", "residual", 28_088_024),
        ("timm/resnet50", "cbam", "residual", 28_089_624),
        ("timm/mobilenetv2_100", "coordinate", "blocks.[1-6].*.bn2", 3_950_648),
        ("torchvision/mobilenet_v2", "coordinate", depthwise_of_expanding_blocks, 3_950_648),
    ],
)
def test_parameter_counts_are_the_published(name: str, mechanism: str, where: Any, total: int) -> None:
    planned = plan(build(name), mechanism, where, example=(1, 3, 64, 64), start="paper")
    assert planned.host_parameters + planned.parameters == total
    assert f"{total:,} with attention" in str(planned)
