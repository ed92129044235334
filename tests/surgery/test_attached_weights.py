"""The weights of a model with attention: state dicts, checkpoints of the host, and freezing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from foveate.errors import UsageError
from foveate.surgery import (
    attach,
    attention_parameters,
    detach,
    freeze_host,
    host_state_dict,
    load_host_state_dict,
)
from surgery import hosts


def test_the_host_part_of_the_state_dict_is_the_plain_hosts() -> None:
    plain = hosts.settle(hosts.ResNet())
    model = hosts.settle(hosts.ResNet())
    attach(model, "cbam", example=hosts.SHAPE, reduction=2)
    part = host_state_dict(model)
    assert list(part) == list(plain.state_dict())
    hosts.ResNet().load_state_dict(part, strict=True)
    assert part._metadata == plain.state_dict()._metadata  # pyright: ignore[reportAttributeAccessIssue]


def test_a_host_checkpoint_loads_strictly_after_attaching() -> None:
    trained, x = hosts.settle(hosts.ResNet()), hosts.image()
    model = hosts.ResNet().eval()
    attach(model, "cbam", example=hosts.SHAPE, reduction=2)
    attention = [parameter.clone() for parameter in attention_parameters(model)]
    load_host_state_dict(model, trained.state_dict())
    assert torch.equal(hosts.run(model, x), hosts.run(trained, x))
    assert all(torch.equal(a, b) for a, b in zip(attention, attention_parameters(model), strict=True))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("head.bias"), "Missing .*head.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "Unexpected .*extra"),
        (lambda state: state.update({"head.bias": torch.zeros(6)}), "size mismatch for head.bias"),
    ],
)
def test_another_hosts_checkpoint_changes_nothing(change: Callable[[dict], Any], says: str) -> None:
    model = hosts.attached()
    before, seen = (
        {name: value.clone() for name, value in model.state_dict().items()},
        [type(m) for m in model.modules()],
    )
    state = {name: value + 1 for name, value in host_state_dict(model).items()}
    change(state)
    with pytest.raises(UsageError, match=says):
        load_host_state_dict(model, state)
    assert [type(m) for m in model.modules()] == seen
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_freezing_leaves_the_attention_to_learn() -> None:
    model = hosts.attached()
    freeze_host(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if hosts.CHILD in name}
    assert {id(p) for p in attention_parameters(model)} == {id(p) for p in model.parameters() if p.requires_grad}


def test_freezing_holds_the_hosts_norms_and_not_those_of_the_attention() -> None:
    """Freezing works where a norm has attention; `train()` unfreezes the norms, and freezing stops them again."""
    model = hosts.settle(hosts.ResNet())
    attach(model, "cbam", nn.BatchNorm2d, example=hosts.SHAPE, reduction=2)
    for _ in range(2):
        model.train()
        freeze_host(model)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        model(hosts.image() + 1)
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert {name.rpartition(".")[2] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}
        assert all(hosts.CHILD in name for name in moved)
    assert model.training


@pytest.mark.parametrize("act", [freeze_host, attention_parameters])
def test_without_attention_there_is_nothing_to_train(act: Callable[[nn.Module], Any]) -> None:
    model = hosts.ResNet()
    with pytest.raises(UsageError, match="attach"):
        act(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_detach_without_attention_is_harmless() -> None:
    model = hosts.ResNet()
    seen = hosts.anatomy(model)
    detach(model)
    assert hosts.anatomy(model) == seen
