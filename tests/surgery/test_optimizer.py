"""New weights join an optimizer that exists, and leave it; what it holds already does not change."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from foveate.errors import UsageError
from foveate.surgery import attach, attention_parameters, detach
from surgery import hosts


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    model(hosts.image()).square().sum().backward()
    optimizer.step()


def contents(optimizer: Optimizer) -> Any:
    """Return the groups and the state of an optimizer, as plain values and tensors of their own."""
    return copy.deepcopy(optimizer.state_dict())


def same(a: Any, b: Any) -> bool:
    """Return whether two contents are equal, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def put(model: nn.Module, optimizer: Any, mechanism: str = "cbam") -> None:
    attach(model, mechanism, example=hosts.SHAPE, reduction=2, optimizer=optimizer)


@pytest.mark.parametrize(
    "make",
    [
        lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
        lambda model: AdamW(model.named_parameters(), lr=0.01),
        lambda model: Adam([{"params": model.head.parameters(), "lr": 0.02}, {"params": model.layer1.parameters()}]),
    ],
    ids=["sgd", "named-adamw", "two-groups"],
)
def test_a_step_moves_the_new_weights_and_the_state_of_the_others_stays(make: Callable[[Any], Optimizer]) -> None:
    model = hosts.settle(hosts.ResNet()).train()
    optimizer = make(model)
    step(model, optimizer)
    before = contents(optimizer)
    put(model, optimizer)
    after = contents(optimizer)
    assert same(after["state"], before["state"])
    assert same(after["param_groups"][: len(before["param_groups"])], before["param_groups"])
    first, *new = optimizer.param_groups[0], *optimizer.param_groups[len(before["param_groups"]) :]
    for group in new:
        for name, value in group.items():
            if name not in ("params", "param_names", "weight_decay"):
                assert same(value, first[name])
            if name == "param_names":
                named = dict(model.named_parameters())
                assert [named[name] for name in value] == group["params"]
        if first["weight_decay"]:
            assert all((parameter.ndim > 1) == bool(group["weight_decay"]) for parameter in group["params"])
    ours = list(attention_parameters(model))
    assert {*ours} == {parameter for group in new for parameter in group["params"]}
    assert len(new) == (2 if first["weight_decay"] else 1)
    weights = [parameter.clone() for parameter in ours]
    for _ in range(2):
        step(model, optimizer)
    moved = [not torch.equal(old, parameter) for old, parameter in zip(weights, ours, strict=True)]
    assert all(moved)


def test_detaching_leaves_the_optimizer_as_it_was() -> None:
    model = hosts.settle(hosts.ResNet()).train()
    optimizer = AdamW(model.named_parameters(), lr=0.01)
    step(model, optimizer)
    groups = contents(optimizer)["param_groups"]
    put(model, optimizer)
    step(model, optimizer)
    kept = {name: optimizer.state[parameter] for name, parameter in model.named_parameters() if hosts.CHILD in name}
    assert kept
    detach(model, "layer1.0.bn2", optimizer=optimizer)
    left = {id(parameter) for group in optimizer.param_groups[1:] for parameter in group["params"]}
    assert left == set(map(id, attention_parameters(model)))
    detach(model, optimizer=optimizer)
    assert same(contents(optimizer)["param_groups"], groups)
    assert set(optimizer.state) == set(model.parameters())
    step(model, optimizer)


def test_attention_without_weights_adds_no_group() -> None:
    model = hosts.settle(hosts.ResNet())
    optimizer = SGD(model.parameters(), lr=0.1)
    attach(model, "simam", start="paper", example=hosts.SHAPE, optimizer=optimizer)
    assert len(optimizer.param_groups) == 1


class Fussy(SGD):
    """It takes one new group, and no second one."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if len(self.param_groups) > 1:
            raise ValueError("no more groups")
        super().add_param_group(param_group)


def scheduled(model: nn.Module) -> Optimizer:
    optimizer = SGD(model.parameters(), lr=0.1)
    torch.optim.lr_scheduler.ConstantLR(optimizer)
    return optimizer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda model: SGD(hosts.ResNet().parameters(), lr=0.1), "holds parameters of the model"),
        (lambda model: SGD(copy.deepcopy(model).parameters(), lr=0.1), "of a copy does not train it"),
        (lambda model: torch.optim.LBFGS(model.parameters()), "another group"),
        (lambda model: torch.optim.Muon([model.head.weight]), "another group"),
        (scheduled, "then make the scheduler"),
        (lambda model: model.parameters(), r"a torch\.optim\.Optimizer"),
    ],
)
def test_refused_before_anything_changes(make: Callable[[Any], Any], message: str) -> None:
    model = hosts.settle(hosts.ResNet())
    optimizer = make(model)
    before = contents(optimizer) if isinstance(optimizer, Optimizer) else None
    seen, random = hosts.anatomy(model), torch.get_rng_state()
    with pytest.raises(UsageError, match=message):
        put(model, optimizer)
    with pytest.raises(UsageError, match=message):
        detach(model, optimizer=optimizer)
    assert hosts.anatomy(model) == seen
    assert torch.equal(torch.get_rng_state(), random)
    assert before is None or same(contents(optimizer), before)


def test_an_optimizer_that_fails_leaves_model_and_optimizer_as_they_were() -> None:
    model = hosts.settle(hosts.ResNet())
    optimizer = Fussy(model.parameters(), lr=0.1, weight_decay=0.01)
    seen = hosts.anatomy(model)
    with pytest.raises(ValueError, match="no more groups"):
        put(model, optimizer)
    assert hosts.anatomy(model) == seen
    assert len(optimizer.param_groups) == 1


def test_a_wrong_argument_leaves_the_optimizer_alone() -> None:
    model = hosts.settle(hosts.ResNet())
    optimizer = SGD(model.parameters(), lr=0.1)
    with pytest.raises(UsageError, match="cbam"):
        put(model, optimizer, "cbma")
    assert len(optimizer.param_groups) == 1
