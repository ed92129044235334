"""A baked model computes what the attached one does, bit for bit, and goes on doing so after tools have rebuilt it."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.nn.utils.fusion import fuse_conv_bn_eval

import foveate
from foveate import kernels
from foveate.errors import UsageError
from last_layers import wake
from representatives import REPRESENTATIVES
from surgery import hosts

pytestmark = [
    pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
]

OPTIONS: dict[str, Any] = {
    **{name: (name, {}) for name in REPRESENTATIVES},
    "parallel": ("cbam", {"order": "parallel"}),
    "spatial first": ("cbam", {"order": "spatial-channel"}),
    "other pools": ("channel", {"pools": ("lp", "lse")}),
    "listing": ("cross", {"dim": 4, "activation": "relu", "scale": False}),
}
WHERE = ["residual", "stage", nn.BatchNorm2d, ["layer1.0", "layer1.0.bn2", "head_norm"]]


class Net(hosts.ResNet):
    """With a norm that no convolution comes before."""

    def __init__(self):
        super().__init__()
        self.head_norm = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.head_norm(self.layer2(self.layer1(self.stem(x)))).mean((2, 3)))


def pair(mechanism: str = "cbam", where: Any = "residual", host: nn.Module | None = None, **options: Any) -> Any:
    """A host, and the same with attention that acts."""
    plain = hosts.settle(host or Net())
    model = copy.deepcopy(plain)
    foveate.attach(model, mechanism, where, example=hosts.SHAPE, start="paper", **options)
    wake(model)
    return plain, model


def truth(model: nn.Module, x: Tensor | None = None) -> Tensor:
    """What a model with hooks computes by plain operations."""
    with kernels.using("reference"):
        return hosts.run(model, hosts.image() if x is None else x)


def check(found: Callable[[Tensor], Tensor], model: nn.Module, plain: nn.Module, within: float = 0) -> None:
    """The result equals the attached model and differs from the plain host: lost attention would show."""
    want, host, y = truth(model), truth(plain), hosts.run(found, hosts.image())
    assert (want - host).abs().max() > max(0.01, 100 * within)
    assert (y - want).abs().max() <= within


@pytest.mark.parametrize("where", WHERE, ids=str)
@pytest.mark.reliability(31)
def test_the_outputs_are_the_attached_ones_at_any_site(where: Any) -> None:
    plain, model = pair(where=where)
    baked = foveate.bake(model, example=hosts.SHAPE)
    check(baked, model, plain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in baked.modules())
    assert any(module._forward_hooks for module in model.modules())
    for tool in (torch.fx.symbolic_trace, torch.jit.script, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))):
        check(tool(baked), model, plain)


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.reliability(31)
def test_every_mechanism_is_traced_scripted_and_exported(case: str) -> None:
    name, options = OPTIONS[case]
    plain, model = pair(name, **options)
    baked = foveate.bake(model, example=hosts.SHAPE)
    check(baked, model, plain)
    check(torch.fx.symbolic_trace(baked), model, plain)
    check(torch.jit.script(baked), model, plain)
    check(torch.export.export(baked, (hosts.image(),)).module(), model, plain, within=1e-5)


@pytest.mark.parametrize("start", ["paper", "identity"])
@pytest.mark.parametrize("host", [hosts.Twice, hosts.Listed, hosts.InPlaceAfter, hosts.LayerScale, hosts.Functional])
def test_hosts_with_awkward_forwards(host: Callable[[], nn.Module], start: Any) -> None:
    plain = hosts.settle(host())
    model = copy.deepcopy(plain)
    foveate.attach(model, "se", example=hosts.SHAPE, start=start)
    if start == "identity":
        assert torch.equal(truth(foveate.bake(model, example=hosts.SHAPE)), truth(plain))
    wake(model)
    check(foveate.bake(model, example=hosts.SHAPE), model, plain)


def test_names_map_back_to_the_attached_model() -> None:
    plain, model = pair()
    baked = foveate.bake(model, example=hosts.SHAPE)
    state = foveate.attached_state_dict(baked)
    assert list(state) == list(model.state_dict())
    made: Any = state
    attached: Any = model.state_dict()
    assert made._metadata["layer1.0.bn2"] == attached._metadata["layer1.0.bn2"] == {"version": 2}  # of its layout
    assert list(foveate.host_state_dict(baked)) == list(plain.state_dict())
    with torch.no_grad():
        for parameter in baked.parameters():
            parameter.mul_(1.1)
    model.load_state_dict(foveate.attached_state_dict(baked), strict=True)
    assert torch.equal(truth(model), hosts.run(baked, hosts.image()))


def test_in_place_the_model_itself_is_baked_and_its_tensors_stay() -> None:
    plain, model = pair()
    want, tensors = truth(model), {id(parameter) for parameter in model.parameters()}
    assert foveate.bake(model, example=hosts.SHAPE, inplace=True) is model
    assert torch.equal(hosts.run(model, hosts.image()), want)
    assert {id(parameter) for parameter in model.parameters()} == tensors
    assert not torch.equal(want, truth(plain))


def test_a_baked_model_learns_as_the_attached_one_does() -> None:
    _, model = pair()
    baked = foveate.bake(model, example=hosts.SHAPE)
    found = []
    for net in (model, baked):
        with kernels.using("reference"):
            net.train()(hosts.image()).square().sum().backward()
        names = foveate.attached_state_dict(net)
        grads = [parameter.grad for parameter in net.parameters()]
        found.append((grads, [value.clone() for value in names.values()]))
    for first, second in zip(*found, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    foveate.freeze_host(baked)
    attention = {id(parameter) for parameter in foveate.attention_parameters(baked)}
    assert attention == {id(parameter) for parameter in baked.parameters() if parameter.requires_grad}


def test_gates_of_a_baked_model_are_recorded_under_its_sites() -> None:
    _, model = pair()
    baked = foveate.bake(model, example=hosts.SHAPE)
    x = hosts.image()
    with kernels.using("reference"), foveate.record(model) as wanted:
        model(x)
    with foveate.record(baked) as found:
        baked(x)
    assert list(found) == list(wanted)
    assert all(torch.equal(a.gate, b.gate) for a, b in zip(found.gates, wanted.gates, strict=True))


class Own(nn.Module):
    """A network whose author calls mechanisms, with one map and with two."""

    def __init__(self):
        super().__init__()
        self.conv, self.se, self.cross = hosts.conv(3, 8), foveate.attention("se", 8), foveate.attention("cross", 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.cross(self.se(x), x)


def test_mechanisms_that_a_model_calls_itself_and_those_inside_a_factorys_module() -> None:
    own = hosts.settle(Own())
    baked = foveate.bake(own, example=hosts.SHAPE)
    for tool in (torch.fx.symbolic_trace, torch.jit.script):
        assert torch.equal(hosts.run(tool(baked), hosts.image()), truth(own))
    plain = hosts.settle(Net())
    model = copy.deepcopy(plain)
    foveate.attach(model, lambda channels: nn.Sequential(foveate.attention("se", channels)), example=hosts.SHAPE)
    check(torch.jit.script(foveate.bake(model, example=hosts.SHAPE)), model, plain)


class Reads(nn.Module):
    """Reads an attribute of its norm."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = hosts.conv(3, 8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.bn.num_features


class Hidden(Reads):
    """Calls its norm past the tree of modules."""

    def __init__(self):
        super().__init__()
        self.layers = [self.conv, self.bn]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[1](self.layers[0](x))


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize(
    ("host", "says"), [(Reads, "AttributeError: .*num_features"), (Hidden, r"change when baked, with the sites bn\n")]
)
def test_a_host_that_does_not_call_its_sites_is_refused_and_stays(host: Any, says: str, inplace: bool) -> None:
    _, model = pair(where="bn", host=host())
    seen, before = hosts.anatomy(model), truth(model)
    with pytest.raises(UsageError, match=says):
        foveate.bake(model, example=hosts.SHAPE, inplace=inplace)
    assert hosts.anatomy(model) == seen
    assert torch.equal(truth(model), before)
    model.bn = nn.GroupNorm(2, 8)
    with pytest.raises(UsageError, match="'bn' is a GroupNorm without it"):  # it still knows its sites
        model(hosts.image())


@pytest.mark.parametrize(
    ("model", "options", "says"),
    [
        ("resnet18", {}, "Received a str"),
        (hosts.ResNet(), {}, "Received one without\nDo: attach"),
        (hosts.attached(), {"inplace": 1}, "inplace"),
        (hosts.attached(), {"example": (1, 4, 16, 16)}, "runs on the example"),
    ],
)
def test_wrong_input(model: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        foveate.bake(model, **{"example": hosts.SHAPE, **options})


@pytest.mark.parametrize(
    "act",
    [
        lambda model: foveate.bake(model, example=hosts.SHAPE),
        lambda model: foveate.attach(model, "se", "stem.0", example=hosts.SHAPE),
        lambda model: foveate.save_adapter(model, "never-written"),
        lambda model: foveate.load_host_state_dict(model, {}),
        foveate.detach,
    ],
)
def test_what_needs_hooks_is_told_to_use_the_attached_model(act: Callable[[nn.Module], Any]) -> None:
    baked = foveate.bake(hosts.attached(), example=hosts.SHAPE)
    with pytest.raises(UsageError, match="Received a baked one\nDo: use the model that was baked"):
        act(baked)


class Timed(nn.Module):
    """A block that is called with two tensors."""

    def __init__(self):
        super().__init__()
        self.conv = hosts.conv(8, 8)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.conv(x) * scale


class OfTwo(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block = hosts.conv(3, 8), Timed()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.block(x, scale=x.mean()) + self.block(x, x.amax())


def test_a_site_that_is_called_with_two_tensors_is_traced() -> None:
    plain, model = pair(where="block", host=OfTwo())
    check(torch.fx.symbolic_trace(foveate.bake(model, example=hosts.SHAPE)), model, plain)


def test_a_norm_is_folded_beside_its_attention() -> None:
    plain, model = pair()
    baked: Any = foveate.bake(model, example=hosts.SHAPE)
    with pytest.raises(AttributeError, match="running_mean"):
        fuse_conv_bn_eval(baked.layer1[0].conv2, baked.layer1[0].bn2)
    for block in (*baked.layer1, *baked.layer2):
        block.conv2 = fuse_conv_bn_eval(block.conv2, block.bn2.foveate_host)
        block.bn2.foveate_host = nn.Identity()
        block.conv1, block.bn1 = fuse_conv_bn_eval(block.conv1, block.bn1), nn.Identity()
    check(baked, model, plain, within=1e-5)


def test_pruned_attention_keeps_its_mask() -> None:
    plain, model = pair()
    baked: Any = foveate.bake(model, example=hosts.SHAPE)
    for net in (model, baked):
        attention = net.layer1[0].bn2.foveate_attention
        prune.l1_unstructured(attention.channel.expand, "weight", 0.5)
        prune.ln_structured(net.layer1[0].conv1, "weight", 0.5, n=1, dim=0)
    check(baked, model, plain)
    prune.remove(baked.layer1[0].bn2.foveate_attention.channel.expand, "weight")
    check(baked, model, plain)


@dataclass
class Both:
    """An output that torch's pytree takes for one leaf."""

    first: Tensor
    rest: list[Any]


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value


class Wrapping(Net):
    """Its output is an object, with other tensors once a site is baked, if it `cheats`."""

    def __init__(self, wrap: Callable[[Tensor], Any], cheats: bool = False):
        super().__init__()
        self.wrap, self.cheats = wrap, cheats

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return self.wrap(y + isinstance(self.layer1[0].bn2, nn.Sequential) if self.cheats else y)


WRAPS: list[Callable[[Tensor], Any]] = [lambda y: Both(y[:1], [y, "text"]), lambda y: {"a": Slotted(Both(y, []))}]


@pytest.mark.parametrize("wrap", WRAPS)
def test_tensors_inside_objects_are_compared(wrap: Any) -> None:
    model = hosts.settle(Wrapping(wrap))
    foveate.attach(model, "cbam", "layer1.0.bn2", example=hosts.SHAPE)
    foveate.bake(model, example=hosts.SHAPE)
    model = hosts.settle(Wrapping(wrap, cheats=True))
    foveate.attach(model, "cbam", "layer1.0.bn2", example=hosts.SHAPE)
    with pytest.raises(UsageError, match="whose outputs change when baked"):
        foveate.bake(model, example=hosts.SHAPE)


def test_an_output_without_tensors_is_refused() -> None:
    model = hosts.settle(Wrapping(lambda y: y.tolist()))
    foveate.attach(model, "cbam", "layer1.0.bn2", example=hosts.SHAPE)
    seen = hosts.anatomy(model)
    with pytest.raises(UsageError, match="a list in which none was found"):
        foveate.bake(model, example=hosts.SHAPE)
    assert hosts.anatomy(model) == seen


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_a_model_that_cannot_be_copied_is_baked_in_place() -> None:
    host: Any = hosts.settle(Net())
    nn.utils.weight_norm(host.head)
    foveate.attach(host, "cbam", "layer1.0.bn2", example=hosts.SHAPE, start="paper")
    host(hosts.image())  # leaves a weight with a graph
    with pytest.raises(UsageError, match=r"deepcopy can copy\nReceived .*\nDo: bake it with inplace=True"):
        foveate.bake(host, example=hosts.SHAPE)
    want = truth(host)
    assert torch.equal(hosts.run(foveate.bake(host, example=hosts.SHAPE, inplace=True), hosts.image()), want)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_a_wrapped_model_is_told_to_bake_the_one_inside(wrap: Any) -> None:
    with pytest.raises(UsageError, match=r"a wrapper, .*\nDo: bake the model that was wrapped, and wrap the result"):
        foveate.bake(wrap(hosts.attached()), example=hosts.SHAPE)
