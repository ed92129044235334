"""Sites at what a module is called with: chosen by name, kept by every tool, and refused with the reason."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

import foveate
from foveate.errors import UsageError
from foveate.surgery import Plan
from foveate.surgery.torch.arguments import Signature, exchange
from last_layers import wake
from surgery import hosts

pytestmark = [
    pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning"),  # of FX graphs
]

WHERE = ["up.*:skip", "up.1:input", "up.1:skip", "out:input", "joined:maps.1", ["up.0", "up.0:x", "up.0:skip"]]


class Up(nn.Module):
    """Resize a map to a size and lay a skip beside it, if there is one."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor, size: int, *, skip: Tensor | None = None) -> Tensor:
        x = interpolate(x, [size, size])
        return self.conv(x if skip is None else torch.cat([x, skip], 1)).relu()


class Join(nn.Module):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)


class Net(nn.Module):
    """A U-Net whose joins are modules: two of a skip by keyword, one without a skip, one of a list."""

    def __init__(self):
        super().__init__()
        self.e1, self.e2, self.e3 = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.up, self.joined = nn.ModuleList([Up(16, 8), Up(16, 8), Up(8, 8)]), Join()
        self.out = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU())

    def forward(self, image: Tensor) -> Tensor:
        a = self.e1(image).relu()
        b = self.e2(a).relu()
        y = self.up[0](self.e3(b).relu(), 8, skip=b)
        y = self.up[2](self.up[1](y, 16, skip=a), 16)
        return self.out(self.joined([y, a]))


def pair(where: Any, mechanism: str = "cbam") -> tuple[nn.Module, nn.Module, Plan]:
    plain = hosts.settle(Net())
    model = copy.deepcopy(plain)
    planned = foveate.attach(model, mechanism, where, example=hosts.SHAPE)
    assert torch.equal(hosts.run(model, hosts.image()), hosts.run(plain, hosts.image()))
    wake(model)
    return plain, model, planned


def by_hand(model: nn.Module, plain: Any) -> Tensor:
    """What the plain host computes with the attention on the two skips alone."""
    skips = [child for name, child in model.named_modules() if name.endswith("foveate_attention-skip")]
    image = hosts.image()
    a = plain.e1(image).relu()
    b = plain.e2(a).relu()
    y = plain.up[0](plain.e3(b).relu(), 8, skip=skips[0](b))
    return plain.out(plain.joined([plain.up[2](plain.up[1](y, 16, skip=skips[1](a)), 16), a]))


def test_the_attention_acts_on_that_argument_alone() -> None:
    plain, model, planned = pair("up.*:skip")
    assert [(site.name, site.shape) for site in planned.sites] == [
        ("up.0:skip", (2, 8, 8, 8)),
        ("up.1:skip", (2, 8, 16, 16)),
    ]
    with torch.no_grad():
        wanted, found, without = by_hand(model, plain), model(hosts.image()), plain(hosts.image())
    assert (wanted - found).abs().max() < 1e-6
    assert (wanted - without).abs().max() > 1e-3


TOOLS: list[Callable[[Any], Any]] = [
    copy.deepcopy,
    lambda model: pickle.loads(pickle.dumps(model)),
    lambda model: foveate.bake(model, example=hosts.SHAPE),
    lambda model: torch.jit.script(torch.fx.symbolic_trace(foveate.bake(model, example=hosts.SHAPE))),
    lambda model: torch.export.export(model, (hosts.image(),)).module(),
    lambda model: torch.compile(model, backend="eager"),
]


@pytest.mark.parametrize("where", WHERE, ids=str)
def test_every_tool_keeps_it(where: Any, tmp_path: Path) -> None:
    plain, model, planned = pair(where)
    wanted = hosts.run(model, hosts.image())
    assert (wanted - hosts.run(plain, hosts.image())).abs().max() > 1e-4
    for number, tool in enumerate(TOOLS if where in ("up.*:skip", "joined:maps.1") else TOOLS[:4]):
        with torch.no_grad():
            assert (tool(model)(hosts.image()) - wanted).abs().max() < 1e-6, number
    baked = foveate.bake(model, example=hosts.SHAPE)
    other = hosts.settle(Net())
    foveate.attach(other, "cbam", where, example=hosts.SHAPE)
    other.load_state_dict(foveate.attached_state_dict(baked), strict=True)
    assert torch.equal(hosts.run(other, hosts.image()), wanted)
    with foveate.record(model) as maps:
        model(hosts.image())
    assert sorted(maps) == sorted(site.name for site in planned.sites)
    foveate.save_adapter(model, tmp_path / "adapter")
    again = foveate.load_adapter(plain, tmp_path / "adapter", example=hosts.SHAPE)
    assert [site.name for site in again.sites] == [site.name for site in planned.sites]
    assert torch.equal(hosts.run(plain, hosts.image()), wanted)


def test_a_site_with_one_argument_compiles_as_torchscript_once_baked() -> None:
    class Plain(nn.Sequential):
        """With a norm that attention comes before."""

    model = Plain(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)).eval()
    foveate.attach(model, "se", ["2:input", "2"], example=hosts.SHAPE)
    wake(model)
    baked = foveate.bake(model, example=hosts.SHAPE)
    assert (torch.jit.script(baked)(hosts.image()) - hosts.run(model, hosts.image())).abs().max() < 1e-6


def test_detach_leaves_the_host_as_it_was() -> None:
    plain, model, _ = pair(WHERE[-1])
    foveate.detach(model, "up.0:skip")
    assert len(list(foveate.host_state_dict(model))) == len(plain.state_dict())
    assert sorted(name for name, _ in model.get_submodule("up.0").named_children()) == [
        *("conv", "foveate_attention", "foveate_attention-x")
    ]
    foveate.detach(model)
    assert torch.equal(hosts.run(model, hosts.image()), hosts.run(plain, hosts.image()))
    for module, before in zip(model.modules(), plain.modules(), strict=True):
        assert vars(module).keys() == vars(before).keys()
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs"):
            assert not vars(module)[hooks]


def test_only_the_attention_trains_in_a_frozen_host() -> None:
    _, model, _ = pair("up.*:skip")
    foveate.freeze_host(model)
    model(hosts.image()).sum().backward()
    learning = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert learning
    assert all("foveate_attention-skip" in name for name in learning)
    assert len(list(foveate.attention_parameters(model))) == 2 * len(
        list(model.get_submodule("up.0.foveate_attention-skip").parameters())
    )


def test_a_site_that_was_lost_is_named() -> None:
    _, model, _ = pair("up.*:skip")
    setattr(model.get_submodule("up"), "0", Up(16, 8))
    with pytest.raises(UsageError, match=r"attention at 1 site: 'up\.0:skip' is a Up without it"):
        model(hosts.image())


def test_fx_tracing_of_the_attached_model_is_refused() -> None:
    _, model, _ = pair("up.*:skip")
    with pytest.raises(UsageError, match=r"foveate\.bake"):
        torch.fx.symbolic_trace(model)


REFUSED = [
    ("up.*:gate", r"the argument 'gate'[\s\S]*'up.0' with 'x', 'size', 'skip'[\s\S]*up.0:x, up.0:skip"),
    ("up.2:skip", r"'skip', which was absent \(None\)[\s\S]*up.2:x; or an example= that gives it"),
    ("up.0:size", r"'size', which is no map but of type int"),
    ("joined:maps", r"'maps', which is no map but of type list[\s\S]*joined:maps.0, joined:maps.1"),
    ("joined:input", r"'maps', which is no map but of type list"),
    ("joined:maps.2", r"the argument 'maps.2'[\s\S]*'joined' with 'maps'"),
    ("down:input", r"'down', which matches no module"),
]


@pytest.mark.parametrize(("where", "says"), REFUSED)
def test_what_is_no_map_is_refused_with_the_arguments_that_are(where: str, says: str) -> None:
    model = hosts.settle(Net())
    with pytest.raises(UsageError, match=says):
        foveate.attach(model, "se", where, example=hosts.SHAPE)
    assert not any("foveate" in name for name, _ in model.named_modules())


def test_a_second_attention_on_one_argument_is_refused() -> None:
    _, model, _ = pair("up.0:skip")
    with pytest.raises(UsageError, match=r"'up\.0:skip', which has a CBAM attached"):
        foveate.attach(model, "se", "up.*:skip", example=hosts.SHAPE)
    foveate.attach(model, "se", "up.1:skip", example=hosts.SHAPE)


class Called(nn.Module):
    def forward(self, a: Any, b: Any = None, *rest: Any, c: Any = None, **others: Any) -> Any:
        return a, b, rest, c, others


@pytest.mark.parametrize(
    ("args", "kwargs", "names"),
    [
        ((1,), {"c": 2, "d": 3}, ["a", "c", "d", "b"]),
        ((1, 2, 3), {}, ["a", "b", "rest.0", "c"]),
        (([1, {"k": 2}],), {"b": (3,)}, ["a", "a.0", "a.1", "a.1.k", "b", "b.0", "c"]),
    ],
)
def test_arguments_have_the_names_of_the_signature(args: Any, kwargs: Any, names: list[str]) -> None:
    signature = Signature(Called())
    named = dict(signature.named(args, kwargs))
    assert list(named) == names
    for name in names:
        seen: list[Any] = []
        exchange(args, kwargs, name, signature.place(name), seen.append)
        assert seen == ([] if named[name] is None else [named[name]])


def test_lists_and_dicts_of_the_caller_do_not_change() -> None:
    given: Any = ([1, 2], {"k": 3})
    place = Signature(Called()).place
    args, _ = exchange(given, {}, "a.1", place("a.1"), lambda value: value * 10)
    args, _ = exchange(args, {}, "b.k", place("b.k"), lambda value: value * 10)
    assert args == ([1, 20], {"k": 30})
    assert given == ([1, 2], {"k": 3})
    with pytest.raises(UsageError, match="a list or a dict with 1"):
        exchange((torch.zeros(3),), {}, "a.1", place("a.1"), lambda value: value)
