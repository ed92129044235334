"""A model baked for inference computes the same but for rounding, with norms folded and blocks finished in one pass."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate import kernels
from foveate.errors import UsageError
from foveate.surgery.torch.inference import Finished
from last_layers import wake
from surgery import hosts

pytestmark = pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning")


class Block(nn.Module):
    """A residual block: norms before the addition, and an activation after it."""

    def __init__(self, activation: nn.Module, channels: int = 8):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn2(self.conv2(self.act(self.bn1(self.conv1(x))))) + x)


def attached(model: nn.Module, mechanism: str, where: Any, size: int = 3, **options: Any) -> nn.Module:
    """The host with attention that acts."""
    hosts.settle(model)
    foveate.attach(model, mechanism, where, example=(2, size, 16, 16), start="paper", **options)
    wake(model)
    return model.eval()


def finished(model: nn.Module) -> list[Finished]:
    return [module for module in model.modules() if isinstance(module, Finished)]


def norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def compare(model: nn.Module, baked: nn.Module, *shapes: tuple[int, ...]) -> None:
    """Both give the same but for rounding, for each shape and in both layouts, and leave their input as it is."""
    for shape in shapes:
        for layout in (torch.contiguous_format, torch.channels_last):
            x = hosts.image(*shape).contiguous(memory_format=layout)
            before = x.clone()
            with torch.inference_mode():
                wanted, found = model(x), baked(x)
            assert torch.equal(x, before)
            assert float((wanted - found).abs().max()) <= 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("mechanism", ["se", "eca", "channel", "cbam", "coordinate", "scse", "gct", "non_local"])
def test_a_residual_network_gives_the_same(mechanism: str) -> None:
    model = attached(hosts.ResNet(), mechanism, "residual")
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert norms(baked) == norms(model) - norms(hosts.ResNet())  # those of the mechanism alone
    assert [one.activation for one in finished(baked)] == ["relu"] * 4
    assert [one.attention is not None for one in finished(baked)] == [True] * 4
    compare(model, baked, hosts.SHAPE, (3, 3, 13, 20))


@pytest.mark.parametrize(
    "host",
    [
        *(hosts.Functional, hosts.Listed, hosts.Twice, hosts.InPlaceAfter, hosts.PaddedShortcut, hosts.LayerScale),
        *(hosts.ScaledAndSliced, hosts.ThreeTerms, hosts.InnerSums, hosts.Parallel, hosts.Merged, hosts.Plain),
    ],
)
@pytest.mark.parametrize("where", [nn.Conv2d, nn.BatchNorm2d])
def test_unusual_hosts_give_the_same(host: type[nn.Module], where: Any) -> None:
    if where is nn.BatchNorm2d and not any(isinstance(module, nn.BatchNorm2d) for module in host().modules()):
        pytest.skip("a host without norms")
    model = attached(host(), "cbam", where, reduction=2)
    compare(model, foveate.bake(model, example=hosts.SHAPE, inference=True), hosts.SHAPE)


@pytest.mark.parametrize(
    ("activation", "name"),
    [(nn.ReLU6(), "relu6"), (nn.LeakyReLU(0.2), "leaky_relu"), (nn.SiLU(), "silu"), (nn.Hardswish(), "hardswish")],
)
def test_each_activation_joins_the_pass(activation: nn.Module, name: str) -> None:
    model = attached(nn.Sequential(Block(activation), Block(activation)), "se", "residual", size=8, reduction=2)
    baked = foveate.bake(model, example=(2, 8, 12, 12), inference=True)
    assert [(one.activation, one.slope) for one in finished(baked)] == [(name, 0.2 if name == "leaky_relu" else 0)] * 2
    compare(model, baked, (2, 8, 12, 12))


def test_attention_after_an_activation_overwrites_its_map() -> None:
    model = attached(
        nn.Sequential(hosts.conv(3, 8), nn.BatchNorm2d(8), nn.ReLU6(inplace=True), hosts.conv(8, 8)), "se", "2"
    )
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert [(one.activation, one.attention is not None) for one in finished(baked)] == [("none", True)]
    compare(model, baked, hosts.SHAPE)


def test_a_map_that_is_taken_twice_is_not_overwritten() -> None:
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu, self.after = hosts.conv(3, 8), nn.ReLU(inplace=True), hosts.conv(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.after(self.relu(y)) + y

    model = attached(Both(), "se", ["relu"], reduction=2)
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert not any(one.attention is not None for one in finished(baked))
    compare(model, baked, hosts.SHAPE)


def test_blocks_without_attention_are_finished_too() -> None:
    model = attached(hosts.ResNet(), "se", ["layer2.1.bn2"], reduction=2)
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert [one.attention is not None for one in finished(baked)].count(True) == 1
    assert len(finished(baked)) == 4
    compare(model, baked, hosts.SHAPE)


def test_a_shortcut_that_is_overwritten_after_the_addition_is_read_before() -> None:
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.bn = hosts.conv(3, 8), hosts.conv(8, 8), nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> Tensor:
            shortcut = self.a(x)
            y = self.bn(self.b(shortcut)) + shortcut
            shortcut.mul_(7)
            return torch.relu(y) + shortcut

    model = attached(Overwrites(), "se", nn.BatchNorm2d, reduction=2)
    compare(model, foveate.bake(model, example=hosts.SHAPE, inference=True), hosts.SHAPE)


def test_layers_with_hooks_or_parametrizations_keep_their_norms() -> None:
    model, seen = attached(hosts.ResNet(), "se", "residual", reduction=2), []
    model.get_submodule("layer1.0.conv1").register_forward_hook(lambda module, args, output: seen.append(output))
    nn.utils.parametrizations.weight_norm(model.get_submodule("layer1.1.conv1"))
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert norms(baked) == 2
    seen.clear()
    compare(model, baked, hosts.SHAPE)
    assert len(seen) == 4  # both models in both layouts
    assert torch.allclose(seen[0], seen[1], atol=1e-5)


def test_bfloat16() -> None:
    model = attached(hosts.ResNet(), "coordinate", "residual").to(torch.bfloat16)
    x = hosts.image().bfloat16()
    baked = foveate.bake(model, example=x, inference=True)
    with torch.inference_mode():
        wanted, found = model(x).float(), baked(x).float()
    assert float((wanted - found).abs().max()) <= 0.1 * float(wanted.abs().max())


def test_the_model_stays_as_it_was_and_the_graph_owns_its_weights() -> None:
    model = attached(hosts.ResNet(), "cbam", "residual", reduction=2)
    before, anatomy = {k: v.clone() for k, v in model.state_dict().items()}, hosts.anatomy(model)
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert hosts.anatomy(model) == anatomy
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    own = {id(value) for value in model.parameters()}
    assert not any(id(value) in own or value.requires_grad for value in baked.parameters())


def test_copies_compiled_and_exported_graphs_compute_the_same() -> None:
    model = attached(hosts.ResNet(), "cbam", "residual", reduction=2)
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    compare(model, copy.deepcopy(baked), hosts.SHAPE)
    compare(model, pickle.loads(pickle.dumps(baked)), hosts.SHAPE)
    exported = torch.export.export(baked, (hosts.image(),))
    names = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert all(name.startswith(("aten.", "<built-in")) for name in names), names
    compare(model, exported.module(), hosts.SHAPE)
    with kernels.using("reference"):
        compare(model, baked, hosts.SHAPE)


def test_what_cannot_be_baked_for_inference_is_refused() -> None:
    model = attached(hosts.ResNet(), "se", "residual", reduction=2)
    with pytest.raises(UsageError, match="inplace=True") as raised:
        foveate.bake(model, example=hosts.SHAPE, inference=True, inplace=True)
    assert raised.value.do == "leave inplace out"
    with pytest.raises(UsageError, match="a model in train mode"):
        foveate.bake(model.train(), example=hosts.SHAPE, inference=True)


class Decides(nn.Module):
    """A forward that depends on the values of its input."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x) if float(x.detach().mean()) > -1e9 else x
        return x


def test_the_parts_of_a_forward_that_fx_cannot_trace_are_finished() -> None:
    model = attached(Decides(hosts.conv(3, 8), Block(nn.ReLU()), Block(nn.ReLU6())), "se", "residual", reduction=2)
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert [one.activation for one in finished(baked)] == ["relu", "relu6"]
    assert norms(baked) == 0
    assert not any(value.requires_grad for value in baked.parameters())
    compare(model, baked, hosts.SHAPE)


def test_a_forward_that_fx_cannot_trace_at_all_is_refused() -> None:
    model = Decides(hosts.conv(3, 8), foveate.attention("se", 8, reduction=2)).eval()
    before = hosts.anatomy(model)
    with pytest.raises(UsageError, match=r"torch\.fx can trace") as raised:
        foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert "Decides" in raised.value.received
    assert hosts.anatomy(model) == before
