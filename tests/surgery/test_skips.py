"""Where "skip" puts attention: on the maps that cross to the decoder, alone; and why it refuses other networks."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, pad

import foveate
from foveate.errors import UsageError
from last_layers import wake
from surgery import hosts, image_hosts
from surgery import segmentation_hosts as networks
from surgery.segmentation_hosts import double

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


def names(model: nn.Module, shape: tuple[int, ...] = (1, 3, 64, 64)) -> list[str]:
    return [site.name for site in foveate.plan(model.eval(), "eca", "skip", example=shape).sites]


class Up(nn.Module):
    """As in the widespread U-Net: the first map is enlarged and padded, and comes after the skip."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up, self.conv = nn.ConvTranspose2d(inputs, inputs // 2, 2, 2), double(inputs, outputs)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        x1 = self.up(x1)
        x1 = pad(x1, [0, x2.shape[3] - x1.shape[3], 0, x2.shape[2] - x1.shape[2]])
        return self.conv(torch.cat([x2, x1], 1))


class Encoder(nn.Module):
    """Three levels, and the joins of a subclass."""

    def __init__(self):
        super().__init__()
        self.e1, self.e2, self.e3, self.out = double(3, 8), double(8, 16), double(16, 32), nn.Conv2d(8, 2, 1)

    def levels(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = self.e1(x)
        b = self.e2(max_pool2d(a, 2))
        return a, b, self.e3(max_pool2d(b, 2))


class Widespread(Encoder):
    def __init__(self):
        super().__init__()
        self.up1, self.up2 = Up(32, 16), Up(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.levels(x)
        return self.out(self.up2(self.up1(c, b), a[:, :, :, :]))


class HalfInline(Widespread):
    """One skip goes through a module, the other is joined in the model's own code."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.levels(x)
        return self.out(self.up2.conv(torch.cat([a, self.up2.up(self.up1(c, b))], 1)))


class Summed(Widespread):
    """As in LinkNet, but one sum is in the model's own code."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.levels(x)
        return self.out(a + self.up2.up(self.up1(c, b)))


class Gate(nn.Module):
    """As in Attention U-Net: the coarser map weighs the skip."""

    def __init__(self, channels: int):
        super().__init__()
        self.g, self.x, self.psi = (nn.Conv2d(channels, n, 1) for n in (channels, channels, 1))

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.psi(torch.relu(self.g(g) + self.x(x))))


class Gated(Encoder):
    def __init__(self):
        super().__init__()
        self.gates = nn.ModuleList([Gate(16), Gate(8)])
        self.ups = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.joins = nn.ModuleList([double(32, 16), double(16, 8)])

    def forward(self, x: Tensor) -> Tensor:
        a, b, y = self.levels(x)
        for skip, up, gate, join in zip((b, a), self.ups, self.gates, self.joins, strict=True):
            large = up(y)
            y = join(torch.cat([gate(g=large, x=skip), large], 1))
        return self.out(y)


class AttentionUNet(networks.UNet):
    """The joins are no blocks, so that a gate is the only module of its level that could be one."""

    def __init__(self):
        super().__init__()
        self.g2, self.g1 = Gate(32), Gate(16)

    def forward(self, x: Tensor) -> Tensor:
        a = self.e1(x)
        b = self.e2(self.pool(a))
        u = self.u2(self.e3(self.pool(b)))
        v = self.u1(self.d2(torch.cat([self.g2(u, b), u], 1)))
        return self.out(self.d1(torch.cat([self.g1(v, a), v], 1)))


def test_attention_on_the_skips_is_no_end_of_a_stage() -> None:
    planned = foveate.plan(AttentionUNet(), "se", "stage", example=(1, 3, 32, 32))
    assert [site.name for site in planned.sites] == ["e1.5", "e2.5", "e3.5", "d2.5", "d1.5"]


class Concat(nn.Module):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)


class Listed(Encoder):
    """As in YOLO necks: a module joins a list of maps."""

    def __init__(self):
        super().__init__()
        self.join1, self.join2, self.d1, self.d2 = Concat(), Concat(), double(48, 16), double(24, 8)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.levels(x)
        y = self.d1(self.join1([interpolate(c, scale_factor=2), b]))
        return self.out(self.d2(self.join2([interpolate(y, scale_factor=2), a])))


class Decoder(nn.Module):
    """A decoder that is called with all levels, and joins them itself."""

    def __init__(self):
        super().__init__()
        self.d1, self.d2 = double(48, 16), double(24, 8)

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        y = self.d1(torch.cat([interpolate(c, scale_factor=2), b], 1))
        return self.d2(torch.cat([interpolate(y, scale_factor=2), a], 1))


class Whole(Encoder):
    def __init__(self):
        super().__init__()
        self.decoder = Decoder()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.decoder(*self.levels(x)))


class Around(nn.Module):
    """As in pix2pix: a block around the next smaller one, which uses its input for the skip and for all below."""

    def __init__(self, channels: int, inner: nn.Module | None = None):
        super().__init__()
        self.down, self.inner = nn.Conv2d(channels, 2 * channels, 3, 2, 1), inner or nn.Identity()
        self.up = nn.ConvTranspose2d(channels * (4 if inner else 2), channels, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.up(self.inner(self.down(x).relu()))], 1)


class SmallUNet(nn.Module):
    """A block that is a small U-Net itself, as in U2-Net."""

    def __init__(self, channels: int):
        super().__init__()
        self.inner, self.up = double(channels, 2 * channels), Up(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.inner(max_pool2d(x, 2)), x)


class Nested(Widespread):
    def __init__(self):
        super().__init__()
        self.e1, self.e2 = (nn.Sequential(*double(n, m), SmallUNet(m)) for n, m in ((3, 8), (8, 16)))


SITES: list[tuple[Callable[[], nn.Module], list[str]]] = [
    (Widespread, ["up1:x2", "up2:x2"]),
    (lambda: nn.Sequential(Widespread()), ["0.up1:x2", "0.up2:x2"]),
    (Gated, ["gates.0:x", "gates.1:x"]),
    (Listed, ["join1:maps.1", "join2:maps.1"]),
    (Whole, ["decoder:a", "decoder:b"]),
    (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), Around(8, Around(16)), nn.Conv2d(16, 2, 1)),
        ["1.up:input.0to16", "2:input.0to8"],
    ),
    (Nested, ["up1:x2", "up2:x2"]),
    (networks.UNet, ["d2.0:input.0to32", "d1.0:input.0to16"]),
    (image_hosts.ImageUNet, ["d2.0:input.0to16", "d1.0:input.0to8"]),
    (HalfInline, ["up1:x2", "up2.conv.0:input.0to8"]),
    (networks.FCN8s, ["score2:input", "score1:input"]),
    (networks.TwoScores, ["low_score:input"]),
    (networks.SeparateHeads, ["lateral:input"]),
    (networks.EndsInAPyramid, ["laterals.0:input"]),
]


@pytest.mark.parametrize(("build", "sites"), SITES)
def test_skips_are_found_by_the_flow_of_data(build: Callable[[], nn.Module], sites: list[str]) -> None:
    assert names(build()) == sites


SMP = {
    "Unet": [f"decoder.blocks.{n}:skip_connection" for n in range(4)],
    "Linknet": [f"decoder.blocks.{n}:skip" for n in range(4)],
    "MAnet": [f"decoder.blocks.{n}:skip" for n in range(4)],
    "UnetPlusPlus": [f"decoder.blocks.x_{n}_{n}:skip" for n in range(4)],
    "FPN": [f"decoder.p{n}:skip" for n in (4, 3, 2)],
    "PAN": [f"decoder.gau{n}:x" for n in (3, 2, 1)],
    "DeepLabV3Plus": ["decoder.block1.0:input"],
}


@pytest.mark.parametrize("name", SMP)
def test_public_networks_have_the_skips_that_a_person_would_choose(name: str) -> None:
    package = pytest.importorskip("segmentation_models_pytorch")
    assert names(getattr(package, name)("resnet18", encoder_weights=None), (1, 3, 128, 128)) == SMP[name]


def test_the_levels_of_a_feature_pyramid() -> None:
    from torchvision.models.detection import backbone_utils

    model = backbone_utils.resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d)
    assert names(model) == [f"fpn.inner_blocks.{n}.0:input" for n in (2, 1, 0)]


class Parallel(nn.Module):
    """As in HRNet: two branches of other resolutions side by side, and their sum."""

    def __init__(self):
        super().__init__()
        self.stem, self.down, self.high, self.low = double(3, 8), nn.Conv2d(8, 8, 3, 2, 1), double(8, 8), double(8, 8)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(self.high(x) + interpolate(self.low(self.down(x)), scale_factor=2))


@pytest.mark.parametrize(
    "build", [hosts.ResNet, Parallel, networks.PooledContext, networks.PaddedByHand, image_hosts.SuperResolution]
)
def test_a_network_without_skips_is_refused_in_words(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(UsageError, match=r"a model with skips.*[\s\S]*none was found[\s\S]*use where='"):
        names(build())


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (Summed, r"the forward of the Summed itself joins, those of 'e1\.5'[\s\S]*nn\.Identity\(\)"),
        (Summed, r"where=\['up1:x2'\] are the other skips"),
    ],
)
def test_a_skip_that_no_module_is_called_with_is_refused_with_what_to_do(build: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        names(build())


def test_attention_on_the_channels_of_a_joined_map_acts_on_the_skip_alone(tmp_path: Path) -> None:
    plain: Any = hosts.settle(networks.UNet())
    model, image = copy.deepcopy(plain), torch.rand(1, 3, 64, 64)
    foveate.attach(model, "cbam", "skip", example=(1, 3, 64, 64))
    assert torch.equal(hosts.run(model, image), hosts.run(plain, image))
    wake(model)
    two, one = (model.get_submodule(f"d{n}.0").get_submodule(f"foveate_attention-input-0to{16 * n}") for n in (2, 1))
    with torch.no_grad():
        a = plain.e1(image)
        b = plain.e2(plain.pool(a))
        y = plain.d2(torch.cat([two(b), plain.u2(plain.e3(plain.pool(b)))], 1))
        wanted = plain.out(plain.d1(torch.cat([one(a), plain.u1(y)], 1)))
    found = hosts.run(model, image)
    assert (found - wanted).abs().max() < 1e-6
    assert (found - hosts.run(plain, image)).abs().max() > 1e-3
    for tool in (copy.deepcopy, foveate.bake, lambda host: torch.fx.symbolic_trace(foveate.bake(host))):
        assert (hosts.run(tool(model), image) - found).abs().max() < 1e-6
    foveate.save_adapter(model, tmp_path / "adapter")
    again = foveate.load_adapter(plain, tmp_path / "adapter", example=(1, 3, 64, 64))
    assert [site.name for site in again.sites] == ["d2.0:input.0to32", "d1.0:input.0to16"]
    assert torch.equal(hosts.run(plain, image), found)
    foveate.detach(plain, "d1.0:input.0to16")
    assert len(foveate.plan(plain, "se", "d1:input.0to16", example=(1, 3, 64, 64)).sites) == 1
    with pytest.raises(UsageError, match=r"the argument 'input\.0to99'"):
        foveate.plan(plain, "se", "d1.0:input.0to99", example=(1, 3, 64, 64))


def test_the_advice_for_inline_skips_works() -> None:
    class Advised(networks.UNet):
        def __init__(self):
            super().__init__()
            self.skip1, self.skip2 = nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            a = self.e1(x)
            b = self.e2(self.pool(a))
            y = self.d2(torch.cat([self.skip2(b), self.u2(self.e3(self.pool(b)))], 1))
            return self.out(self.d1(torch.cat([self.skip1(a), self.u1(y)], 1)))

    model, seen = hosts.settle(Advised()), dict[str, Tensor]()
    foveate.attach(model, "se", "skip?", example=(1, 3, 64, 64))
    model.get_submodule("e3").register_forward_hook(lambda *call: seen.update(deep=call[2]))
    image = torch.rand(1, 3, 64, 64)
    before, deep = hosts.run(model, image), seen["deep"]
    wake(model)
    after = hosts.run(model, image)
    assert not torch.equal(before, after)
    assert torch.equal(deep, seen["deep"]), "the encoder does not see the attention"
