"""Attention in 1-D and 3-D networks: sites, plans, training, adapters, records, baked and exported models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate import kernels
from foveate.cost import measure
from foveate.errors import UsageError
from foveate.mechanisms import create
from foveate.models import ensure_torchvision

ensure_torchvision()

CONV = {1: nn.Conv1d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d, 3: nn.MaxPool3d}
MEAN = {1: nn.AdaptiveAvgPool1d, 3: nn.AdaptiveAvgPool3d}
SHAPES = {1: (2, 2, 64), 3: (2, 2, 4, 16, 16)}
SITES = ["blocks.0.norm2", "blocks.1.norm2", "blocks.2.norm2"]


class Block(nn.Module):
    def __init__(self, axes: int, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1, self.norm1 = CONV[axes](inputs, outputs, 3, stride, 1), NORM[axes](outputs)
        self.conv2, self.norm2 = CONV[axes](outputs, outputs, 3, 1, 1), NORM[axes](outputs)
        self.relu = nn.ReLU(inplace=True)
        self.down = CONV[axes](inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x))))) + self.down(x))


class Net(nn.Module):
    """A ResNet of 1-D or 3-D convolutions."""

    def __init__(self, axes: int):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.pool = CONV[axes](2, 8, 3, 1, 1), POOL[axes](2)
        self.blocks = nn.Sequential(Block(axes, 8, 8), Block(axes, 8, 8), Block(axes, 8, 16, 2))
        self.mean, self.head = MEAN[axes](1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mean(self.blocks(self.pool(self.stem(x)))).flatten(1))


@pytest.fixture(params=[1, 3], ids=["1-D", "3-D"])
def axes(request: pytest.FixtureRequest) -> int:
    return request.param


def attached(axes: int, name: str = "se") -> Net:
    """Return a network with attention that acts, in eval mode."""
    net = Net(axes)
    options: dict[str, Any] = {"reduction": 2} if name == "se" else {}
    foveate.attach(net, name, example=SHAPES[axes], start="paper", **options)
    return net.eval()


def test_the_presets_find_the_sites_and_the_plan_shows_the_shapes(axes: int) -> None:
    planned = foveate.plan(Net(axes), "se", example=SHAPES[axes], reduction=2)
    assert [site.name for site in planned.sites] == SITES
    shape = {1: (2, 16, 16), 3: (2, 16, 1, 4, 4)}[axes]
    assert planned.sites[-1].shape == shape
    assert planned.sites[-1].cost == measure(create("se", reduction=2), shape, start="identity")
    assert " x ".join(map(str, shape)) in str(planned)
    assert planned.to_dict()["sites"][-1]["shape"] == list(shape)
    stages = foveate.plan(Net(axes), "eca", "stage", example=SHAPES[axes])
    assert [site.name for site in stages.sites] == ["blocks.1", "blocks.2"]


def test_the_input_is_guessed(axes: int) -> None:
    assert [site.name for site in foveate.plan(Net(axes), "eca").sites] == SITES


@pytest.mark.parametrize("where", [NORM[1], NORM[3], "blocks.*.norm2", lambda name, _, shape: name.endswith("norm2")])
def test_sites_by_type_name_and_predicate(axes: int, where: object) -> None:
    if where in NORM.values():
        where = NORM[axes]
    planned = foveate.plan(Net(axes), "eca", where, example=SHAPES[axes])  # type: ignore[arg-type]
    assert set(SITES) <= {site.name for site in planned.sites}


@pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")
@pytest.mark.parametrize("name", ["se", "eca", "channel", "cross"])
def test_attention_computes_at_its_sites_and_learns(axes: int, name: str) -> None:
    net, x = attached(axes, name), torch.rand(SHAPES[axes])
    seen: list[tuple[Tensor, Tensor]] = []
    attention: Any = net.get_submodule("blocks.1.norm2.foveate_attention")
    attention.register_forward_hook(lambda _, args, y: seen.append((args[0].clone(), y)))
    y = net(x)
    (given, made) = seen[0]
    alone = foveate.attention(attention.mechanism, 8)
    alone.load_state_dict(attention.state_dict())
    torch.testing.assert_close(made, alone(given.flatten(3) if axes == 3 else given.unsqueeze(3)).reshape(given.shape))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in foveate.attention_parameters(net))
    host = Net(axes).eval()
    foveate.attach(host, name, example=SHAPES[axes])
    assert torch.equal(host(x), Net(axes).eval()(x))


def test_kernels_and_plain_operations_agree(axes: int) -> None:
    net, x = attached(axes), torch.rand(SHAPES[axes])
    if reason := kernels.unavailable():
        pytest.skip(f"no kernels: {reason}")
    with torch.no_grad():
        with kernels.using("cpu"):
            found = net(x)
        with kernels.using("reference"):
            torch.testing.assert_close(found, net(x))


def test_an_adapter_keeps_the_attention(axes: int, tmp_path: Path) -> None:
    net, x, other = attached(axes), torch.rand(SHAPES[axes]), Net(axes).eval()
    foveate.save_adapter(net, tmp_path / "adapter.safetensors")
    foveate.load_adapter(other, tmp_path / "adapter.safetensors", example=SHAPES[axes])
    assert torch.equal(other(x), net(x))


def test_recorded_gates_have_the_axes_of_the_features(axes: int) -> None:
    net = attached(axes)
    with foveate.record(net) as maps:
        net(torch.rand(SHAPES[axes]))
    gate = maps["blocks.2.norm2"].gates[0]
    assert gate.gate.shape == (2, 16, *[1] * axes)
    assert gate.size == {1: (16,), 3: (1, 4, 4)}[axes]


def bake(net: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    return foveate.bake(net, example=x)


def script(net: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    return torch.jit.freeze(torch.jit.script(foveate.bake(net, example=x).eval()))


def export(net: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    return torch.export.export(net, (x,)).module()


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["se", "cross"])
@pytest.mark.parametrize("deployed", [bake, script, export])
def test_a_deployed_model_computes_the_same(axes: int, deployed: Callable[..., Callable], name: str) -> None:
    net, x = attached(axes, name), torch.rand(SHAPES[axes])
    with torch.no_grad():
        torch.testing.assert_close(deployed(net, x)(x), net(x))


def test_a_mechanism_of_rows_and_columns_is_refused_at_attaching(axes: int) -> None:
    net = Net(axes)
    with pytest.raises(UsageError, match=r"use one of channel, .*, eca, .*, se, .*$"):
        foveate.attach(net, "cbam", example=SHAPES[axes], reduction=2)
    assert not any("foveate" in name for name, _ in net.named_modules())


def test_a_2_d_site_refuses_an_image_without_its_batch() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    foveate.attach(net, "eca", "0", example=(1, 3, 8, 8))
    with pytest.raises(UsageError, match=r"\(N, 8, H, W\)\nReceived a tensor of shape \(8, 8, 8\)"):
        net(torch.rand(3, 8, 8))


def test_tokens_of_a_transformer_are_no_1_d_maps() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.Linear(4, 4))
    with pytest.raises(UsageError, match=r"\(N, C, H, W\)"):
        foveate.plan(model, "se", "2", example=(1, 3, 8, 8))
    speech = nn.Sequential(nn.Conv1d(1, 8, 3, padding=1), Transposed(), nn.LayerNorm(8), nn.Linear(8, 8))
    for site in "123":
        with pytest.raises(UsageError, match="with the channels in its last axis"):
            foveate.plan(speech, "se", site, example=(1, 1, 16))


class Transposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def test_a_video_network_of_torchvision() -> None:
    from torchvision.models.video import r3d_18

    net = r3d_18(weights=None).eval()
    x = torch.rand(1, 3, 8, 32, 32)
    before = net(x)
    planned = foveate.attach(net, "se", example=x)
    assert [site.name for site in planned.sites] == [f"layer{i}.{j}.conv2.1" for i in range(1, 5) for j in range(2)]
    assert planned.sites[-1].shape == (1, 512, 1, 2, 2)
    assert planned.parameters == sum(2 * (2 * c * (c // 16) + c // 16 + c) for c in (64, 128, 256, 512))
    assert torch.equal(net(x), before)
    stages = foveate.plan(r3d_18(weights=None), "eca", "stage", example=x)
    assert [site.name for site in stages.sites] == [f"layer{i}.1" for i in range(1, 5)]
