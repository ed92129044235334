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
from foveate.kernels.finish import NONE, Activation
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
    assert [one.activation for one in finished(baked)] == [Activation("relu")] * 4
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
    assert [one.activation for one in finished(baked)] == [(name, 0.2 if name == "leaky_relu" else 0)] * 2
    compare(model, baked, (2, 8, 12, 12))


@pytest.mark.parametrize("mechanism", ["se", "spatial", "cbam", "coordinate"])
@pytest.mark.parametrize(
    ("activation", "before"),
    [
        (lambda: nn.ReLU6(inplace=True), Activation("relu6")),
        (nn.SiLU, Activation("silu")),
        (lambda: nn.LeakyReLU(0.2), Activation("leaky_relu", 0.2)),
    ],
)
def test_the_activation_before_attention_joins_it(mechanism: str, activation: Any, before: Activation) -> None:
    layers = hosts.conv(3, 8), nn.BatchNorm2d(8), activation(), hosts.conv(8, 8)
    model = attached(nn.Sequential(*layers), mechanism, "2")
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert [(one.before, one.activation, one.attention is not None) for one in finished(baked)] == [
        (before, NONE, True)
    ]
    assert not any(isinstance(module, type(activation())) for module in baked.modules())
    compare(model, baked, hosts.SHAPE, (1, 3, 13, 20))


def test_without_a_kernel_the_activation_before_attention_stays() -> None:
    layers = hosts.conv(3, 8), nn.ReLU(inplace=True), hosts.conv(8, 8)
    model = attached(nn.Sequential(*layers), "non_local", "1")
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert [one.before for one in finished(baked)] == [NONE]
    compare(model, baked, hosts.SHAPE)


class Surrounded(nn.Module):
    """Attention between two activations, with a shortcut that is overwritten later."""

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.bn = hosts.conv(3, 8), hosts.conv(8, 8), nn.BatchNorm2d(8)
        self.act, self.last = nn.SiLU(), nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.first(x)
        y = self.act(self.bn(self.conv(input=shortcut)))
        shortcut = shortcut * 2
        y = self.last(y + shortcut)
        shortcut.mul_(7)
        return y + shortcut


@pytest.mark.parametrize("where", ["act", "conv"])
def test_attention_between_two_activations(where: str) -> None:
    model = attached(Surrounded(), "cbam", [where], reduction=2)
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    if where == "act":
        assert [(one.before.name, one.activation.name) for one in finished(baked)] == [("silu", "leaky_relu")]
    compare(model, baked, hosts.SHAPE)
    compiled = torch.compile(baked, fullgraph=True, backend="eager")
    compare(model, compiled, hosts.SHAPE)  # pyright: ignore[reportArgumentType]
    compare(model, torch.export.export(baked, (hosts.image(),)).module(), hosts.SHAPE)


def test_an_activation_with_a_hook_stays_where_it_is() -> None:
    model, seen = nn.Sequential(hosts.conv(3, 8), nn.ReLU(), hosts.conv(8, 8), Block(nn.ReLU())), list[Tensor]()
    for name in ("1", "3.act"):
        model.get_submodule(name).register_forward_hook(lambda m, args, y: seen.append(y.clone()))
    attached(model, "se", ["1", "3.bn2"])
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    seen.clear()
    with torch.inference_mode():
        model(hosts.image())
        baked(hosts.image())
    assert len(seen) == 6  # the block calls its activation twice
    for wanted, found in zip(seen[:3], seen[3:], strict=True):
        assert torch.allclose(wanted, found, atol=1e-5)


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


def test_hooks_run_at_each_call_and_see_what_they_saw() -> None:
    model, seen = attached(hosts.ResNet(), "se", "residual", reduction=2), dict[str, list[Any]]()
    named = dict(model.named_modules())
    for name in ("layer1.0.conv2", "layer1.1", "layer2.0.bn2.foveate_attention"):
        named[name].register_forward_hook(lambda m, args, y, name=name: seen.setdefault(name, []).append(y))
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    seen.clear()
    with torch.inference_mode():
        model(hosts.image())
        baked(hosts.image())
    assert {name: len(outputs) for name, outputs in seen.items()} == dict.fromkeys(seen, 2)
    assert len(seen) == 3
    for name in ("layer1.0.conv2", "layer1.1"):  # the host itself overwrites what its attention returned
        assert torch.allclose(*seen[name], atol=1e-4), name


def test_parametrized_layers_keep_their_norms() -> None:
    model = attached(hosts.ResNet(), "se", "residual", reduction=2)
    nn.utils.parametrizations.weight_norm(model.get_submodule("layer1.1.conv1"))
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    assert norms(baked) == 1
    compare(model, baked, hosts.SHAPE)


class Sums(nn.Module):
    """The forward makes a tensor and writes into it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(hosts.conv(3, 8), Block(nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(())
        total += self.layers(x).abs().mean()
        return total


class Masks(nn.Module):
    """An argument that may be None; the parent reads an attribute of the block, and writes into a sum."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.after = hosts.conv(3, 8), Block(nn.ReLU()), hosts.conv(8, 8)
        vars(self.block)["scale"] = 0.5

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.stem(x)
        if mask is not None:
            y = y * mask
        y = y.relu()
        y.add_(self.block(y) * vars(self.block)["scale"])
        return self.after(y)


class Shares(nn.Module):
    """One block under two names, and a forward that depends on values."""

    def __init__(self):
        super().__init__()
        self.stem, self.one = hosts.conv(3, 8), Block(nn.ReLU())
        self.other = self.one

    def forward(self, x: Tensor) -> Tensor:
        x = self.other(self.one(self.stem(x)))
        return x if float(x.detach().mean()) > -1e9 else -x


@pytest.mark.parametrize("make", [Sums, Masks, Shares])
def test_forwards_that_a_graph_could_get_wrong(make: type[nn.Module]) -> None:
    model = attached(make(), "se", nn.BatchNorm2d, reduction=2)
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    for _ in range(3):
        compare(model, baked, hosts.SHAPE)


def test_an_addition_in_place_whose_target_is_read_later_is_kept() -> None:
    class Writes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = hosts.conv(3, 8), hosts.conv(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            s = self.a(x)
            s.add_(self.b(s))
            return s * 2

    model = attached(Writes(), "se", ["b"], reduction=2)
    compare(model, foveate.bake(model, example=hosts.SHAPE, inference=True), hosts.SHAPE)


def test_gates_are_recorded_under_the_names_of_the_sites() -> None:
    model = attached(hosts.ResNet(), "cbam", "residual", reduction=2)
    baked = foveate.bake(model, example=hosts.SHAPE, inference=True)
    with foveate.record(model) as wanted:
        model(hosts.image())
    with foveate.record(baked) as found:
        baked(hosts.image())
    assert list(found) == list(wanted)
    compare(model, baked, hosts.SHAPE)


def test_the_weights_of_the_attached_model_cannot_come_from_it() -> None:
    baked = foveate.bake(attached(hosts.ResNet(), "se", "residual", reduction=2), example=hosts.SHAPE, inference=True)
    with pytest.raises(UsageError, match="whose norms are folded"):
        foveate.attached_state_dict(baked)


def test_the_check_finds_attention_that_became_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    def tenth(mechanism: Any, p: Any, x: Tensor, before: Any, shortcut: Tensor | None, *_: Any) -> Tensor:
        return torch.relu(x * 0.1 + (0 if shortcut is None else shortcut))

    for dtype in (torch.float32, torch.bfloat16):
        model = attached(hosts.ResNet(), "se", "residual", reduction=2).to(dtype)
        foveate.bake(model, example=hosts.image().to(dtype), inference=True)
        with monkeypatch.context() as patch:
            patch.setattr("foveate.surgery.torch.inference.finish.attend", tenth)
            with pytest.raises(UsageError, match="when its norms are folded"):
                foveate.bake(model, example=hosts.image().to(dtype), inference=True)


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
    assert [one.activation for one in finished(baked)] == [Activation("relu"), Activation("relu6")]
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
