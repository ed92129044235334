from collections.abc import Callable, Mapping
from typing import Any

import pytest
import timm
import torch
from tests.surgery.published_networks import (
    AttentionBottleneck,
    Cbam,
    Coordinate,
    Eca,
    Linears,
    OpenMMLab,
    mobile,
    mobile_coordinate,
    plain_resnet,
    published_resnet,
)
from timm.models.resnet import BasicBlock as TimmBlock
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision.models.resnet import Bottleneck

import foveate
from foveate.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def drawn(net: nn.Module) -> nn.Module:
    """Return the network in float64 and eval mode, with weights and statistics that all matter."""
    generator = torch.Generator().manual_seed(1)
    for key, tensor in net.double().eval().state_dict().items():
        if tensor.is_floating_point():
            low, high = (0.6, 1.4) if tensor.ndim == 1 and not key.endswith("bias") else (-0.2, 0.2)
            tensor.uniform_(low, high, generator=generator)
    return net


def attached(net: nn.Module, mechanism: str, where: Any, **options: Any) -> nn.Module:
    foveate.attach(net.double().eval(), mechanism, where, example=(3, 32, 32), start="paper", **options)
    return net


def timm_resnet(**options: Any) -> nn.Module:
    kind: Any = TimmBlock
    return TimmResNet(kind, (1, 1, 1, 1), 10, channels=(16, 24, 32, 48), **options)


def values(net: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in net.state_dict().items()}


def unchanged(net: nn.Module, before: Mapping[str, Tensor]) -> bool:
    now = net.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[key], before[key]) for key in now)


def check_equal(ours: nn.Module, theirs: nn.Module) -> None:
    want = theirs(IMAGES)
    assert want.std() > 1e-6
    torch.testing.assert_close(ours(IMAGES), want, rtol=1e-10, atol=1e-12)


def openmmlab(saved: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a checkpoint with a backbone and a head."""
    names = {key: f"head.{key}" if key.startswith("fc.") else f"backbone.{key}" for key in saved}
    return {"meta": {"epoch": 1}, "state_dict": {names[key]: value for key, value in saved.items()}}


def released(saved: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a checkpoint of a network that was trained with DataParallel."""
    return {"epoch": 90, "arch": "resnet18", "state_dict": {f"module.{key}": value for key, value in saved.items()}}


def normed(channels: int) -> nn.Module:
    """Return SE with weight norm in both layers and another reduction."""
    made = Linears(channels, 8)
    for layer in (made.fc[0], made.fc[2]):
        weight_norm(layer)
    return made


RESNETS: dict[str, tuple[str, Callable[[int], nn.Module], Callable[[Any], Any], str, dict[str, Any], str]] = {
    "SENet-style": ("se", Linears, dict, "se", {"bias": False}, "fc"),
    "SENet-style in another module": ("se_module", Linears, released, "se", {"bias": False}, "fc"),
    "SENet-style of reduction 8": ("se", lambda c: Linears(c, 8), dict, "se", {"bias": False}, "fc"),
    "SENet-style with weight norm": ("se", normed, dict, "se", {"bias": False}, "fc"),
    "ECA-Net": ("eca", Eca, dict, "eca", {}, "authors"),
    "ECA-Net with its own kernels": ("eca", lambda c: Eca(c, 5 + c // 64 * 2), released, "eca", {}, "authors"),
    "CBAM": ("cbam", Cbam, released, "cbam", {}, "authors"),
    "OpenMMLab": ("se_layer", OpenMMLab, openmmlab, "se", {}, "mmpretrain"),
    "coordinate attention": ("ca", Coordinate, dict, "coordinate", {}, "authors"),
}


@pytest.mark.parametrize("case", RESNETS)
def test_a_host_with_the_weights_of_a_published_network_computes_what_it_does(case: str) -> None:
    named, make, saved_as, mechanism, options, layout = RESNETS[case]
    theirs = drawn(published_resnet(named, make))
    ours = attached(plain_resnet(), mechanism, "layer*.*.bn2", **options)
    assert foveate.load_published(ours, saved_as(theirs.state_dict())) == layout
    check_equal(ours, theirs)


def test_bottlenecks_with_attention_before_the_addition() -> None:
    theirs = drawn(published_resnet("se", Linears, kind=AttentionBottleneck))
    ours = attached(plain_resnet(kind=Bottleneck), "se", "layer*.*.bn3", bias=False)
    foveate.load_published(ours, theirs.state_dict())
    check_equal(ours, theirs)


@pytest.mark.parametrize(("layer", "mechanism", "layout"), [("se", "se", "timm"), ("eca", "eca", "authors")])
def test_networks_of_timm_whose_hidden_units_are_rounded(layer: str, mechanism: str, layout: str) -> None:
    theirs = drawn(timm_resnet(block_args={"attn_layer": layer}))
    plain = timm_resnet()
    ours = attached(plain, mechanism, "residual")
    assert foveate.load_published(ours, theirs.state_dict()) == layout
    check_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "host", "mechanism"), [("seresnet50", "resnet50", "se"), ("ecaresnet50d", "resnet50d", "eca")]
)
def test_named_networks_of_timm(name: str, host: str, mechanism: str) -> None:
    theirs = drawn(timm.create_model(name, num_classes=10))
    ours = attached(timm.create_model(host, num_classes=10), mechanism, "layer*.*.bn3")
    foveate.load_published(ours, theirs.state_dict())
    check_equal(ours, theirs)


def test_attention_inside_a_sequence_moves_the_numbers_of_what_comes_after() -> None:
    theirs = drawn(mobile(mobile_coordinate))
    ours = attached(mobile(), "coordinate", "features.*.conv.5")
    assert foveate.load_published(ours, theirs.state_dict()) == "authors-mobilenetv2"
    check_equal(ours, theirs)


class Flat(nn.Module):
    """A network whose attention is named apart from what it follows."""

    def __init__(self, make: Callable[[int], nn.Module] | None):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 32, 3, 2)
        self.gates = [f"cbam{at}" for at in (1, 2)] if make else []
        for name, channels in zip(self.gates, (16, 32), strict=False):
            self.add_module(name, make(channels) if make else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        for at, down in enumerate((self.down1, self.down2)):
            x = down(x)
            x = self.get_submodule(self.gates[at])(x) if self.gates else x
        return x


def test_sites_are_named_where_the_names_do_not_show_them() -> None:
    theirs = drawn(Flat(lambda channels: Cbam(channels, 8)))
    ours = attached(Flat(None), "cbam", "down*")
    before = values(ours)
    with pytest.raises(UsageError, match=r"(?s)no site, or several: .*cbam1.*Do: .*sites=\{"):
        foveate.load_published(ours, theirs.state_dict())
    with pytest.raises(UsageError, match=r"sites with attention\nReceived up1\n"):
        foveate.load_published(ours, theirs.state_dict(), sites={"cbam1": "up1"})
    assert unchanged(ours, before)
    foveate.load_published(ours, released(theirs.state_dict()), sites={"cbam1": "down1", "cbam2": "down2"})
    check_equal(ours, theirs)


def test_a_network_of_float32_and_modules_that_were_resized_keep_their_use() -> None:
    theirs = drawn(published_resnet("se", lambda channels: Linears(channels, 4))).float()
    ours = plain_resnet()
    foveate.attach(ours, "se", "layer*.*.bn2", example=(3, 32, 32), start="paper", bias=False)
    foveate.freeze_host(ours)
    torch.manual_seed(3)
    foveate.load_published(ours, theirs.state_dict())
    assert torch.initial_seed() == 3
    drawn_next = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn_next, torch.rand(1))
    torch.testing.assert_close(ours.eval()(IMAGES.float()), theirs(IMAGES.float()))
    parameters = list(foveate.attention_parameters(ours))
    assert [tuple(p.shape) for p in parameters[:2]] == [(16, 64, 1, 1), (64, 16, 1, 1)]
    assert all(p.dtype == torch.float32 and p.requires_grad for p in parameters)


def se_weights(**changes: Any) -> dict[str, Any]:
    saved = drawn(published_resnet("se", Linears)).state_dict()
    return {
        **{key: value for key, value in saved.items() if key not in changes},
        **{k: v for k, v in changes.items() if v is not None},
    }


HEAD = {"fc.weight": torch.zeros(7, 128), "fc.bias": torch.zeros(7)}
SE0 = "layer1.0.se.fc.0.weight"
REFUSED: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "a key of nothing": (
        se_weights(**{"aux.weight": torch.zeros(3)}),
        "layer*.*.bn2",
        {"bias": False},
        r"no place for: aux\.weight\nDo: build the host of these weights, or remove",
    ),
    "a missing key": (
        se_weights(**{"layer1.0.conv1.weight": None}),
        "layer*.*.bn2",
        {"bias": False},
        r"no weights for the host's layer1\.0\.conv1\.weight\nDo: build the host",
    ),
    "other classes": (
        se_weights(**HEAD),
        "layer*.*.bn2",
        {"bias": False},
        r"fc\.weight \(7, 128\) for \(10, 128\), fc\.bias \(7,\) for \(10,\)\nDo: .*as many classes",
    ),
    "no biases": (
        se_weights(),
        "layer*.*.bn2",
        {},
        r"layer1\.0\.bn2, layer2\.0\.bn2: .*bias=False\nDo: .*attach it with bias=False$",
    ),
    "biases": (
        {
            **se_weights(),
            **{
                f"layer{n}.0.se.fc.{i}.bias": torch.zeros(size)
                for n, c in ((1, 64), (2, 128))
                for i, size in ((0, c // 16), (2, c))
            },
        },
        "layer*.*.bn2",
        {"bias": False},
        r"bias=True\nDo: .*attach it with bias=True$",
    ),
    "a site too many": (
        se_weights(),
        ["layer*.*.bn2", "bn1"],
        {"bias": False},
        r"no weights for the sites bn1\nDo: detach\(model, names\)",
    ),
    "a site too few": (
        se_weights(),
        "layer2.0.bn2",
        {"bias": False},
        r"no site, or several: layer1\.0\.se\.fc\.0\.weight\nDo: .*'se'.* at where=\['layer1\.\*\.bn2'\]",
    ),
    "another place in the block": (
        se_weights(),
        ["layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn2"],
        {"bias": False},
        r"(?s)no site, or several: layer1.*no weights for the sites layer1\.0\.bn1, layer1\.0\.bn2\nDo: ",
    ),
    "another mechanism": (
        drawn(published_resnet("eca", Eca)).state_dict(),
        "layer*.*.bn2",
        {},
        r"(?s)at layer1\.0\.bn2, layer2\.0\.bn2: .*eca\.conv\.weight \(1, 1, 3\)",
    ),
    "half of a mechanism": (
        se_weights(**{SE0: None}),
        "layer*.*.bn2",
        {"bias": False},
        r"at layer1\.0\.bn2: .*se\.fc\.2\.weight",
    ),
    "nothing": ({}, "layer*.*.bn2", {}, r"no weights for the host's conv1\.weight"),
    "no mapping": ([1], "layer*.*.bn2", {}, "a state dict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_named_and_changes_nothing(case: str) -> None:
    saved, where, options, message = REFUSED[case]
    ours = attached(plain_resnet(), "se", where, **options)
    before = values(ours)
    with pytest.raises(UsageError, match=message):
        foveate.load_published(ours, saved)
    assert unchanged(ours, before)


def test_a_host_without_attention_is_told_which_attention_the_names_suggest() -> None:
    with pytest.raises(UsageError, match=r"Do: .*'se'.*where=\['layer1\.\*\.bn2', 'layer2\.\*\.bn2'\].*start='paper'"):
        foveate.load_published(plain_resnet(), se_weights())
    with pytest.raises(UsageError, match=r"where=\['features\.1\.conv\.5', 'features\.2\.conv\.5'\]"):
        foveate.load_published(mobile(), mobile(mobile_coordinate).state_dict())
    with pytest.raises(UsageError, match=r"(?s)model without attention.*attach\(model"):
        foveate.load_published(plain_resnet(), plain_resnet().state_dict())


def test_the_identity_start_and_modules_of_a_factory_are_refused() -> None:
    net = plain_resnet()
    foveate.attach(net, "se", "layer*.*.bn2", example=(3, 32, 32))
    with pytest.raises(UsageError, match='start="paper"'):
        foveate.load_published(net, se_weights())
    foveate.detach(net)
    foveate.attach(net, lambda channels: nn.Conv2d(channels, channels, 1), "layer*.*.bn2", example=(3, 32, 32))
    with pytest.raises(UsageError, match=r"a Conv2d at 'layer1\.0\.bn2'"):
        foveate.load_published(net, se_weights())
