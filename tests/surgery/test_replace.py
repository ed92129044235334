"""Attention in the place of the attention that a model has: what SE did is gone, and comes back with `detach`."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

import foveate
from foveate import kernels
from foveate.errors import UsageError
from foveate.surgery import attach, bake, detach, host_state_dict, load_adapter, plan, save_adapter
from last_layers import wake
from surgery import hosts
from surgery.se_hosts import (
    Block,
    Gated,
    Hidden,
    Idle,
    Listed,
    Named,
    Reading,
    ScSE,
    Shared,
    SqueezeExcite,
    Swish,
    Unregistered,
    Wrapper,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::foveate.errors.ReductionWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
]
SHAPE = (1, 3, 32, 32)


def small(block: Callable[..., nn.Module] = Block) -> nn.Module:
    return hosts.settle(hosts.ResNet(block))


HOSTS: dict[str, tuple[Callable[[], nn.Module], Any, int]] = {
    "efficientnet": (lambda: torchvision.models.efficientnet_b0(num_classes=5), "SqueezeExcitation", 16),
    "mobilenet": (lambda: torchvision.models.mobilenet_v3_small(num_classes=5), "SqueezeExcitation", 9),
    "regnet": (lambda: torchvision.models.regnet_y_400mf(num_classes=5), torchvision.ops.SqueezeExcitation, 16),
    "timm mobilenet": (lambda: timm.create_model("mobilenetv3_small_050", num_classes=5), "SqueezeExcite", 9),
    "timm regnet": (lambda: timm.create_model("regnety_002", num_classes=5), "SqueezeExcite", 13),  # SEModule's alias
    "small": (small, ["SqueezeExcite", "SEModule"], 4),
}


def by_hand(host: nn.Module, replace: Any, make: Callable[[str], nn.Module]) -> nn.Module:
    """A copy of the host in which every SE is another module."""
    built = copy.deepcopy(host)
    kinds = ("SqueezeExcite", "SEModule", "SqueezeExcitation")
    for name, module in list(built.named_modules()):
        if type(module).__name__ in kinds:
            parent, _, key = name.rpartition(".")
            built.get_submodule(parent)._modules[key] = make(name)
    return built


@pytest.mark.parametrize("case", HOSTS)
def test_the_network_is_the_one_in_which_se_was_replaced_by_hand(case: str) -> None:
    build, replace, count = HOSTS[case]
    host = hosts.settle(build())
    model, x, before = copy.deepcopy(host), hosts.image(*SHAPE), hosts.anatomy(host)
    planned = plan(host, "eca", replace=replace, example=SHAPE)
    assert hosts.anatomy(host) == before
    olds = {site.name: host.get_submodule(site.name) for site in planned.sites}
    assert len(olds) == count
    assert planned.removed.parameters == sum(p.numel() for old in olds.values() for p in old.parameters())
    added = attach(model, "eca", replace=replace, example=SHAPE)
    assert added == planned
    assert sum(p.numel() for p in model.parameters()) == (
        planned.host_parameters + planned.parameters - planned.removed.parameters
    )
    was, now = hosts.run(host, x), hosts.run(model, x)
    assert (was - now).abs().max() > 1e-6
    assert torch.equal(now, hosts.run(by_hand(host, replace, lambda name: nn.Identity()), x))
    wake(model)
    attention: Any = {name: model.get_submodule(f"{name}.{hosts.CHILD}") for name in olds}
    woken = hosts.run(model, x)
    assert torch.equal(woken, hosts.run(by_hand(host, replace, attention.__getitem__), x))
    assert not torch.equal(woken, now)
    detach(model)
    assert torch.equal(hosts.run(model, x), was)
    assert model.state_dict().keys() == host.state_dict().keys()


def test_a_plan_says_what_goes_and_what_comes() -> None:
    planned = plan(small(), "eca", replace="SqueezeExcite", example=SHAPE)
    assert str(planned).startswith("eca in the place of SqueezeExcite (start='identity'")
    assert "SqueezeExcite removed" in str(planned)
    assert "(-" in str(planned)
    assert planned.to_dict()["removed"]["parameters"] == planned.removed.parameters == 2 * 76 + 2 * 148
    assert {site["replaces"] for site in planned.to_dict()["sites"]} == {"SqueezeExcite"}
    assert planned.removed.macs == 2 * 64 + 2 * 128
    assert plan(small(), "eca", example=SHAPE).removed.parameters == 0


@pytest.mark.parametrize(
    ("where", "sites"),
    [
        ("layer2", ["layer2.0", "layer2.1"]),
        ("layer*.0.**", ["layer1.0", "layer2.0"]),
        ("residual", ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]),
        ("stage", ["layer1.1", "layer2.1"]),
        (lambda name, module, shape: name == "layer1.1.se", ["layer1.1"]),
        ([Block], ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]),
    ],
    ids=["module", "pattern", "residual", "stage", "function", "class"],
)
def test_where_says_which_of_them(where: Any, sites: list[str]) -> None:
    planned = plan(small(), "se", where, replace=SqueezeExcite, example=SHAPE)
    assert [site.name for site in planned.sites] == [f"{name}.se" for name in sites]


def test_any_class_can_be_replaced_and_what_is_inside_goes_with_it() -> None:
    planned = plan(small(), "se", "**.se.**", replace=nn.Module, example=SHAPE)
    assert [site.name for site in planned.sites] == [f"layer{n}.{i}.se" for n in (1, 2) for i in (0, 1)]
    assert len(plan(small(), "se", replace="BatchNorm2d", example=SHAPE).sites) == 10


def test_a_sequence_that_weighs_its_input_is_found_and_replaced() -> None:
    gate = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid()]
    model = nn.Sequential(hosts.conv(3, 8), nn.Sequential(hosts.conv(8, 8), Listed(*gate)), hosts.conv(8, 8))
    with pytest.raises(UsageError, match="Do: use replace='Listed': modules"):
        attach(model, "eca", replace="SE", example=SHAPE)
    attach(model, "eca", replace="Listed", example=SHAPE)
    x = hosts.image(*SHAPE)
    assert torch.equal(hosts.run(model, x), hosts.run(nn.Sequential(model[0], model.get_submodule("1.0"), model[2]), x))


def taken(model: nn.Module) -> nn.Module:
    attach(model, "eca", replace="SqueezeExcite", example=SHAPE)
    return model


def inside(model: nn.Module, where: str) -> nn.Module:
    attach(model, "se", where, example=SHAPE)
    return model


WRONG: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "another name": (small, {"replace": "SEModule"}, "use replace='SqueezeExcite': modules of this model"),
    "a module's name": (small, {"replace": "layer1.0.se"}, "use replace='SqueezeExcite'"),
    "scSE in a wrapper": (
        lambda: nn.Sequential(hosts.conv(3, 8), Wrapper(ScSE(8)), Swish(), hosts.Block(8, 8)),
        {"replace": "SE"},
        "Do: use replace='ScSE': modules of this model",
    ),
    "no class": (small, {"replace": 5}, "Received 5"),
    "nothing": (small, {"replace": ""}, "Received ''"),
    "an empty list": (small, {"replace": []}, r"Received \[\]"),
    "a list of others": (small, {"replace": ["SqueezeExcite", None]}, "Received None"),
    "where none is": (small, {"replace": "SqueezeExcite", "where": "stem"}, "none of layer1.0.se, layer1.1.se"),
    "where nothing is": (small, {"replace": "SqueezeExcite", "where": "body"}, "'body', which matches no module"),
    "no attention": (lambda: small(hosts.Block), {"replace": "SE"}, "no module of this model weighs its input"),
    "another shape": (small, {"replace": nn.Linear}, r"takes \(1, 16\) and returns \(1, 5\)\nDo: use replace='Squ"),
    "a gate": (lambda: small(Gated), {"replace": "Gate"}, "in the model's code, which may multiply by what it returns"),
    "a keyword": (lambda: small(Named), {"replace": "SqueezeExcite"}, "called with something else"),
    "a reader": (lambda: small(Reading), {"replace": "SqueezeExcite"}, "reads nothing else of it"),
    "a reference": (lambda: small(Unregistered), {"replace": "SqueezeExcite"}, "as its own child"),
    "a childless reference": (Hidden, {"replace": "Identity"}, "as its own child"),
    "an idle one": (lambda: small(Idle), {"replace": "SqueezeExcite"}, "'layer1.0.se', which the probe run did not"),
    "its place is taken": (lambda: taken(small()), {"replace": "SqueezeExcite"}, r"detach\(model\) first"),
    "attention inside": (
        lambda: inside(small(), "layer1.0.se.reduce"),
        {"replace": "SqueezeExcite"},
        r"'layer1.0.se.reduce', which has a",
    ),
    "attention before": (
        lambda: inside(small(), "layer1.0.se:input"),
        {"replace": "SqueezeExcite"},
        "'layer1.0.se:x', which has a",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_replaced_is_named_and_nothing_changes(case: str) -> None:
    build, options, says = WRONG[case]
    model = build()
    before, state = hosts.anatomy(model), torch.get_rng_state()
    with pytest.raises(UsageError, match=says):
        attach(model, "eca", example=SHAPE, **options)
    assert hosts.anatomy(model) == before
    assert torch.equal(torch.get_rng_state(), state)


def test_one_module_in_two_places_has_one_attention_in_both() -> None:
    host = hosts.settle(Shared())
    model, x = copy.deepcopy(host), hosts.image(*SHAPE)
    planned = attach(model, "cbam", replace="SqueezeExcite", example=SHAPE, start="paper")
    assert [site.name for site in planned.sites] == ["first"]
    wake(model)
    attention: Any = model.get_submodule(f"first.{hosts.CHILD}")
    hand: Any = copy.deepcopy(host)
    hand.first = hand.head[1] = attention
    with kernels.using("reference"):
        y = hosts.run(model, x)
        assert torch.equal(y, hosts.run(hand, x))
        assert torch.equal(hosts.run(bake(model, example=SHAPE), x), y)
    detach(model)
    assert model.get_submodule("first") is model.get_submodule("head.1")
    assert torch.equal(hosts.run(model, x), hosts.run(host, x))


def test_an_adapter_says_what_it_replaces(tmp_path: Path) -> None:
    host, path = small(), tmp_path / "eca.safetensors"
    model, x = copy.deepcopy(host), hosts.image(*SHAPE)
    attach(model, "eca", "layer2", replace="SqueezeExcite", example=SHAPE)
    attach(model, "cbam", "layer1.*.bn2", example=SHAPE)
    wake(model)
    save_adapter(model, path)
    fresh = copy.deepcopy(host)
    loaded = load_adapter(fresh, path, example=SHAPE)
    assert [(site.name, site.replaces) for site in loaded.sites] == [
        *(("layer1.0.bn2", None), ("layer1.1.bn2", None)),
        *(("layer2.0.se", "SqueezeExcite"), ("layer2.1.se", "SqueezeExcite")),
    ]
    assert torch.equal(hosts.run(fresh, x), hosts.run(model, x))
    detach(fresh, "layer2.0.se")
    assert isinstance(fresh.get_submodule("layer2.0.se"), SqueezeExcite)
    assert not isinstance(fresh.get_submodule("layer2.1.se"), SqueezeExcite)

    without = by_hand(host, "SqueezeExcite", lambda name: nn.Identity())
    refused = [(without, "SqueezeExcite at 'layer2.0.se'"), (fresh, "layer1.0.bn2")]
    for other, says in [*refused, (small(Named), "called with something else")]:
        before = hosts.anatomy(other)
        with pytest.raises(UsageError, match=says):
            load_adapter(other, path, example=SHAPE)
        assert hosts.anatomy(other) == before


def test_a_baked_model_has_ordinary_modules_and_the_same_weights() -> None:
    model, x = small(), hosts.image(*SHAPE)
    attach(model, "cbam", replace="SqueezeExcite", example=SHAPE)
    wake(model)
    with kernels.using("reference"):
        y = hosts.run(model, x)
    baked = bake(model, example=SHAPE)
    assert not any(isinstance(module, SqueezeExcite) for module in baked.modules())
    for tool in (lambda m: m, torch.fx.symbolic_trace, torch.jit.script, copy.deepcopy):
        assert torch.equal(hosts.run(tool(baked), x), y)
    model.load_state_dict(foveate.attached_state_dict(baked), strict=True)
    assert bake(model, example=SHAPE, inplace=True) is model
    assert torch.equal(hosts.run(model, x), y)


def test_the_hosts_checkpoint_is_that_of_the_plain_host() -> None:
    host, other, model = small(), small(), small()
    attach(model, "eca", replace="SqueezeExcite", example=SHAPE)
    wake(model)
    own, theirs = host_state_dict(model), other.state_dict()
    assert list(own) == list(host.state_dict())
    assert not set(own) <= set(model.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    damaged = {key: value for key, value in theirs.items() if key != "layer1.0.se.reduce.bias"}
    before = hosts.anatomy(model).keys(), copy.deepcopy(host_state_dict(model))
    with pytest.raises(UsageError, match=r"layer1\.0\.se\.reduce\.bias"):
        foveate.load_host_state_dict(model, damaged)
    after = host_state_dict(model)
    assert hosts.anatomy(model).keys() == before[0]
    assert all(torch.equal(value, after[key]) for key, value in before[1].items())
    foveate.load_host_state_dict(model, theirs)
    detach(model)
    assert torch.equal(hosts.run(model, hosts.image(*SHAPE)), hosts.run(other, hosts.image(*SHAPE)))


def test_what_was_replaced_moves_is_copied_and_is_frozen_with_the_model() -> None:
    model = small()
    attach(model, "eca", replace="SqueezeExcite", example=SHAPE)
    names = [name for name, _ in model.named_parameters()]
    assert not any(".se.reduce" in name for name in names)
    foveate.freeze_host(model)
    trained = {id(parameter) for parameter in foveate.attention_parameters(model)}
    assert {id(p) for p in model.parameters() if p.requires_grad} == trained
    model.double().train()
    twin = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    x = hosts.image(*SHAPE).double()
    assert torch.equal(hosts.run(twin, x), hosts.run(model, x))
    detach(twin)
    se = twin.get_submodule("layer1.0.se")
    assert isinstance(se, SqueezeExcite)
    assert se.training
    assert {parameter.dtype for parameter in se.parameters()} == {torch.float64}
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert not isinstance(model.get_submodule("layer1.0.se"), SqueezeExcite)


def test_gates_are_recorded_at_the_places_that_were_taken() -> None:
    model = small()
    attach(model, "se", replace="SqueezeExcite", example=SHAPE)
    with foveate.record(model) as maps:
        hosts.run(model, hosts.image(*SHAPE))
    assert list(maps) == [f"layer{n}.{i}.se" for n in (1, 2) for i in (0, 1)]
    assert all(gate.gate.eq(1).all() for gate in maps.gates)
    assert maps["layer2.1.se"].gates[0].gate.shape == (1, 16, 1, 1)


def test_a_published_network_loads_where_its_attention_replaced_se() -> None:
    host, x = small(), hosts.image(*SHAPE)
    model, theirs = copy.deepcopy(host), copy.deepcopy(host)
    attach(model, "eca", replace="SqueezeExcite", example=SHAPE, start="paper", kernel_size=3)
    for name, module in list(theirs.named_modules()):
        if isinstance(module, SqueezeExcite):
            own: Any = theirs.get_submodule(name.removesuffix(".se"))
            own.se = foveate.attention("eca", module.reduce.in_channels, kernel_size=3)
    wake(theirs)
    foveate.load_published(model, theirs.state_dict())
    assert torch.equal(hosts.run(model, x), hosts.run(theirs, x))
    detach(model)
    assert torch.equal(hosts.run(model, x), hosts.run(host, x))


def test_a_site_alone_cannot_have_its_module_back() -> None:
    model = small()
    attach(model, "eca", replace="SqueezeExcite", example=SHAPE)
    with pytest.raises(UsageError, match="on the model that holds it"):
        detach(model.get_submodule("layer1.0.se"))
