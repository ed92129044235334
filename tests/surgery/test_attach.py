"""Attaching and detaching: nothing is lost, nothing stays behind, wrong calls change nothing."""

import copy
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate.torch
from foveate.errors import UsageError
from foveate.mechanisms.se import SE
from foveate.surgery import (
    attach,
    attention_parameters,
    detach,
    plan,
)
from surgery import hosts


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("where", ["residual", "stage", "stem", nn.BatchNorm2d])
def test_attach_and_detach_leave_no_trace(where: Any, training: bool) -> None:
    model, x = hosts.settle(hosts.ResNet()), hosts.image()
    before = hosts.run(model, x)
    model.train(training)
    model.layer1.eval()  # pyright: ignore[reportAttributeAccessIssue]
    model.stem.register_forward_hook(print_nothing)  # pyright: ignore[reportAttributeAccessIssue]
    seen, keys = hosts.anatomy(model), list(model.state_dict())
    attach(model, "se", where, example=hosts.SHAPE, reduction=4)
    assert hosts.anatomy(model) != seen
    assert [key for key in model.state_dict() if hosts.CHILD not in key] == keys
    for site in model.modules():
        if hosts.CHILD in dict(site.named_children()):
            assert getattr(site, hosts.CHILD).training == site.training
    detach(model)
    assert hosts.anatomy(model) == seen
    assert list(model.state_dict()) == keys
    assert torch.equal(hosts.run(model.eval(), x), before)


def test_the_paper_start_is_the_attention_written_into_the_model_by_hand() -> None:
    model, by_hand, x = hosts.trained_resnet(), hosts.trained_resnet(), hosts.image()
    for site in attach(model, "cbam", start="paper", example=hosts.SHAPE, reduction=2).sites:
        holder, _, name = site.name.rpartition(".")
        attention = copy.deepcopy(model.get_submodule(f"{site.name}.{hosts.CHILD}"))
        block = by_hand.get_submodule(holder)
        setattr(block, name, nn.Sequential(block.get_submodule(name), attention))
    assert torch.equal(hosts.run(model, x), hosts.run(by_hand, x))
    assert not torch.equal(hosts.run(model, x), hosts.run(hosts.trained_resnet(), x))


def print_nothing(module: nn.Module, args: Any, output: Tensor) -> None:
    """A user's own hook."""


def test_plan_changes_nothing_and_says_what_attach_does() -> None:
    model = hosts.settle(hosts.ResNet()).train()
    seen, state = hosts.anatomy(model), torch.get_rng_state()
    planned = plan(model, "cbam", example=hosts.SHAPE, reduction=2)
    assert hosts.anatomy(model) == seen
    assert torch.equal(torch.get_rng_state(), state)
    assert attach(model, "cbam", example=hosts.SHAPE, reduction=2) == planned
    assert sum(parameter.numel() for parameter in attention_parameters(model)) == planned.parameters


def test_the_first_weights_follow_the_seed_alone() -> None:
    def weights(host: nn.Module) -> list[Tensor]:
        torch.manual_seed(3)
        attach(host, "se", example=hosts.SHAPE, reduction=2)
        return list(attention_parameters(host))

    once, again = weights(hosts.ResNet()), weights(hosts.ResNet())
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


class Unruly(nn.Module):
    """Keeps its input, counts its calls, writes to a buffer and draws random numbers, also in eval mode."""

    def __init__(self):
        super().__init__()
        self.conv, self.calls = hosts.conv(3, 8), 0
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x
        self.seen += torch.rand(3)
        self.seen = self.seen * 2
        return self.conv(x)

    def eval(self) -> "Unruly":
        raise RuntimeError("the probe must not call eval()")


def test_the_probe_gives_back_what_the_run_changed() -> None:
    model = Unruly()
    seen, content, state = hosts.anatomy(model), model.seen.clone(), torch.get_rng_state()
    plan(model, "se", "conv", example=hosts.SHAPE, reduction=2)
    after = hosts.anatomy(model)
    buffers, now = seen[""][4], after[""][4]
    assert buffers["seen"][0] == now["seen"][0]
    assert torch.equal(model.seen, content)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.calls == 0
    assert sorted(vars(model)) == seen[""][1]
    assert model.training


SHARED = nn.Identity()
WRONG: list[tuple[str, Callable[[nn.Module], Any], str]] = [
    ("unknown mechanism", lambda m: attach(m, "cbma"), "cbam"),
    ("unknown option", lambda m: attach(m, "se", reductoin=4), "reduction"),
    ("reduction 0", lambda m: attach(m, "se", reduction=0), "reduction"),
    ("even kernel", lambda m: attach(m, "cbam", kernel_size=4), "odd kernel"),
    ("unknown start", lambda m: attach(m, "se", start="zero"), "identity"),  # pyright: ignore[reportArgumentType]
    ("no such module", lambda m: attach(m, "se", "layer3.*.bn2"), "layer1.*bn2"),
    ("part of a name", lambda m: attach(m, "se", "bn2"), "bn2"),
    ("no such type", lambda m: attach(m, "se", nn.ConvTranspose2d), "ConvTranspose2d"),
    ("a predicate that never holds", lambda m: attach(m, "se", lambda name, module, shape: False), "predicate"),
    ("an empty list", lambda m: attach(m, "se", []), "pattern"),
    ("a number", lambda m: attach(m, "se", 3), "pattern"),  # pyright: ignore[reportArgumentType]
    ("a type that is no module", lambda m: attach(m, "se", int), "pattern"),  # pyright: ignore[reportArgumentType]
    ("one good and one bad pattern", lambda m: attach(m, "se", ["stage", "nothing"]), "nothing"),
    ("a site without (N, C, H, W)", lambda m: attach(m, "se", "head"), r"\(1, 5\)"),
    ("an example of two channels", lambda m: attach(m, "se", example=(2, 2, 16, 16)), "example"),
    (
        "an example by name",
        lambda m: attach(m, "se", example={"image": torch.zeros(8, 3, 64, 64)}),
        r"Received .{1,99}'image'\nDo",
    ),
    ("an example that is none", lambda m: attach(m, "se", example="here"), "example"),
    ("a module in place of a factory", lambda m: attach(m, nn.Identity()), "lambda channels"),
    ("a factory that returns none", lambda m: attach(m, lambda channels: 3), "int"),  # pyright: ignore[reportArgumentType]
    ("a factory with options", lambda m: attach(m, lambda channels: nn.Identity(), reduction=3), "factory"),
    ("a factory that returns one twice", lambda m: attach(m, lambda channels: SHARED), "twice"),
    (
        "a factory of another width",
        lambda m: attach(m, lambda channels: nn.Conv2d(channels, channels + 1, 1)),
        "keeps the shape",
    ),
    (
        "attention of another width",
        lambda m: attach(m, "residual_cbam", start="paper", out_channels=5),
        "keeps the shape",
    ),
]


@pytest.mark.parametrize(("call", "says"), [pytest.param(call, says, id=name) for name, call, says in WRONG])
def test_a_wrong_call_says_what_to_do_and_changes_nothing(call: Callable[[nn.Module], Any], says: str) -> None:
    model = hosts.ResNet()
    seen, state = hosts.anatomy(model), torch.get_rng_state()
    with pytest.raises(UsageError, match=says):
        call(model)
    assert hosts.anatomy(model) == seen
    assert torch.equal(torch.get_rng_state(), state)


def scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(hosts.ResNet())


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return hosts.ResNet()


UNFIT: list[tuple[str, Callable[[], Any], str]] = [
    ("no module", lambda: "resnet18", "Module"),
    ("wrapped", lambda: nn.DataParallel(hosts.ResNet()), "wrap"),
    ("compiled", lambda: torch.compile(hosts.ResNet(), backend="eager"), "compile"),
    ("lazy", lambda: nn.Sequential(nn.LazyConv2d(8, 3)), "run the model once"),
    ("scripted", scripted, "export or trace"),
    ("made in inference mode", made_in_inference_mode, "make it outside"),
    ("no convolution", lambda: nn.Sequential(nn.Linear(3, 3)), "example="),
]


@pytest.mark.parametrize(("host", "says"), [pytest.param(host, says, id=name) for name, host, says in UNFIT])
def test_a_host_that_cannot_be_changed_in_place_is_refused(host: Callable[[], Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        attach(host(), "se")


def test_a_second_mechanism_goes_elsewhere_but_not_on_top() -> None:
    model = hosts.attached()
    seen = hosts.anatomy(model)
    with pytest.raises(UsageError, match=r"layer1\.0\.bn2.*\n.*detach"):
        attach(model, "se", example=hosts.SHAPE, reduction=2)
    assert hosts.anatomy(model) == seen
    x = hosts.image()
    before = hosts.run(model, x)
    more = attach(model, "eca", "stage", example=hosts.SHAPE)
    assert [site.name for site in more.sites] == ["layer1.1", "layer2.1"]
    assert torch.equal(hosts.run(model, x), before)
    detach(model)
    assert not any(hosts.CHILD in name for name, _ in model.named_modules())


@pytest.mark.parametrize("failing", ["add_module", "register_forward_hook"])
@pytest.mark.parametrize("nth", [1, 3])
def test_a_failure_half_way_leaves_no_trace(failing: str, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = hosts.ResNet()
    seen, state = hosts.anatomy(model), torch.get_rng_state()
    real, calls = getattr(nn.BatchNorm2d, failing), itertools.count(1)

    def fail(module: nn.Module, what: Any, *args: Any) -> Any:
        ours = what == hosts.CHILD or getattr(what, "__name__", "") == "apply_attention"
        if ours and next(calls) == nth:
            raise KeyboardInterrupt
        return real(module, what, *args)

    with monkeypatch.context() as patch:
        patch.setattr(nn.BatchNorm2d, failing, fail)
        with pytest.raises(KeyboardInterrupt):
            attach(model, "se", example=hosts.SHAPE, reduction=2)
    assert hosts.anatomy(model) == seen
    assert torch.equal(torch.get_rng_state(), state)
    detach(model)
    assert hosts.anatomy(model) == seen


def test_a_host_that_runs_whatever_children_it_has_is_noticed() -> None:
    model = nn.Sequential(hosts.RunsItsChildren(), nn.ReLU())
    seen = hosts.anatomy(model)
    with pytest.raises(UsageError, match="its own children"):
        attach(model, "se", lambda name, module, shape: name == "0", example=hosts.SHAPE, reduction=2)
    assert hosts.anatomy(model) == seen
    attach(model, "se", "0.b", example=hosts.SHAPE, reduction=2)


def test_a_container_gives_its_place_to_what_made_its_output() -> None:
    model = hosts.ResNet()
    sites = attach(model, "se", ["stem", "layer1", "layer2"], example=hosts.SHAPE, reduction=2).sites
    assert [site.name for site in sites] == ["stem.2", "layer1.1", "layer2.1"]
    containers = [
        module for module in model.modules() if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict)
    ]
    assert containers
    assert not any(hosts.CHILD in module._modules for module in containers)


def test_a_container_that_makes_its_own_output_is_refused() -> None:
    model = hosts.Dense()
    with pytest.raises(UsageError, match="DictBlock, which would run attention") as refused:
        attach(model, "se", "block", example=hosts.SHAPE, reduction=2)
    assert "block." in refused.value.do
    assert attach(model, "se", "norm", example=hosts.SHAPE, reduction=2).sites[0].name == "norm"


def test_a_module_that_runs_twice_has_one_attention_for_both_calls() -> None:
    model, calls = hosts.settle(hosts.Twice()), []
    planned = attach(model, "se", example=hosts.SHAPE, reduction=2)
    model.block[1].foveate_attention.register_forward_hook(lambda module, args, output: calls.append(module))  # pyright: ignore
    hosts.run(model, hosts.image())
    assert len(calls) == 2
    single = plan(hosts.Twice(), "se", "stem", example=hosts.SHAPE, reduction=2)
    assert (planned.parameters, planned.macs) == (single.parameters, 2 * single.macs)


class TwoWidths(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.relu = hosts.conv(3, 8), hosts.conv(8, 16), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.b(self.relu(self.a(x))))


def test_a_module_that_runs_at_two_widths_is_refused() -> None:
    with pytest.raises(UsageError, match="8 and 16 channels"):
        attach(TwoWidths(), "se", "relu", example=hosts.SHAPE, reduction=2)


def test_a_module_that_does_not_run_is_named() -> None:
    model = hosts.ResNet()
    model.spare = nn.BatchNorm2d(8)
    with pytest.raises(UsageError, match="'spare', but the probe run did not call it"):
        attach(model, "se", "spare", example=hosts.SHAPE)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("layer[12].*.bn2", 4),
        ("layer1.*.bn?", 4),
        ("**.bn2", 4),
        ("layer2.0.**", 8),
        ("layer1.0", 1),
        (["stage", "layer1.*.bn1"], 4),
    ],
)
def test_patterns(pattern: Any, count: int) -> None:
    assert len(plan(hosts.ResNet(), "eca", pattern, example=hosts.SHAPE).sites) == count


def test_mechanisms_are_given_by_name_object_class_or_factory() -> None:
    options = {"example": hosts.SHAPE, "start": "identity"}
    named = plan(hosts.ResNet(), "se", reduction=4, **options)
    assert plan(hosts.ResNet(), SE(reduction=4), **options) == named
    assert plan(hosts.ResNet(), SE, reduction=4, **options) == named
    assert plan(hosts.ResNet(), foveate.torch.SE, reduction=4, **options) == named

    def pointwise(channels: int) -> nn.Module:
        return nn.Conv2d(channels, channels, 1, bias=False)

    control = plan(hosts.ResNet(), pointwise, **options)
    assert control.mechanism == "pointwise"
    assert [(site.cost.parameters, site.cost.macs) for site in control.sites] == [
        (64, 2 * 64 * 256),
        (64, 2 * 64 * 256),
        (256, 2 * 256 * 64),
        (256, 2 * 256 * 64),
    ]


@pytest.mark.parametrize(
    "example", [(2, 3, 16, 16), (3, 16, 16), torch.zeros(2, 3, 16, 16), (torch.zeros(1, 3, 16, 16),), None]
)
def test_examples(example: Any) -> None:
    shape = plan(hosts.ResNet(), "eca", example=example).sites[0].shape
    assert shape[1:] == ((8, 224, 224) if example is None else (8, 16, 16))
