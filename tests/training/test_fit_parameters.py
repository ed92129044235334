"""Which parameters learn, when, and at which learning rate."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from foveate.errors import UsageError
from foveate.experiment.arms import Control
from foveate.surgery import attach, freeze_host
from foveate.torch_utils.names import CHILD
from foveate.training import Diverged, Learner, fit
from training.toy import QUICK, equal, state_of, toy_data, toy_model


def test_frozen_parameters_stay() -> None:
    model = toy_model()
    model[0].requires_grad_(False)  # type: ignore[index]
    before = state_of(model)
    fit(model, toy_data(), QUICK)
    assert torch.equal(model.state_dict()["0.weight"], before["0.weight"])
    assert not torch.equal(model.state_dict()["5.weight"], before["5.weight"])


def test_biases_norms_and_scalars_are_not_decayed() -> None:
    model = toy_model()
    model.scale = nn.Parameter(torch.zeros(()))  # type: ignore[assignment]
    groups = Learner(model, QUICK, 10).configure_optimizers()["optimizer"].param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    assert decayed == {"0.weight", "5.weight"}
    assert sum(len(group["params"]) for group in groups) == len(names)


@pytest.mark.parametrize(("epochs", "moves"), [(2, False), (3, True)])
def test_the_backbone_is_frozen_at_first_and_then_learns(epochs: int, moves: bool) -> None:
    """Of a classifier, the backbone is all but the last layer."""
    model, seen = toy_model(), []
    before = state_of(model)
    fit(
        model,
        toy_data(),
        dataclasses.replace(QUICK, epochs=epochs, freeze_epochs=2),
        lambda row: seen.append(state_of(model)),
    )
    assert all(parameter.requires_grad for parameter in model.parameters())
    held = [
        all(torch.equal(state[name], value) for name, value in before.items() if not name.startswith("5."))
        for state in seen
    ]
    assert held == [True, True, False][:epochs]
    assert moves is not all(held)
    assert not torch.equal(seen[0]["5.weight"], before["5.weight"])


def test_frozen_parts_stay_frozen_and_attention_in_the_backbone_learns() -> None:
    model, seen = toy_model(), []
    attach(model, "se", "2", example=(1, 1, 8, 8), reduction=4)
    freeze_host(model)
    before = state_of(model)
    fit(
        model,
        toy_data(),
        dataclasses.replace(QUICK, epochs=2, freeze_epochs=1),
        lambda row: seen.append(state_of(model)),
    )
    learnt = {name for name, _ in model.named_parameters() if not torch.equal(model.state_dict()[name], before[name])}
    assert learnt
    assert all("foveate_attention" in name for name in learnt)
    assert not all(torch.equal(seen[0][name], before[name]) for name in learnt), "the attention rested too"


def test_a_run_that_diverges_with_a_frozen_backbone_unfreezes_it() -> None:
    model, data = toy_model(), toy_data()
    data.train.tensors[0][:] = float("nan")
    with pytest.raises(Diverged):
        fit(model, data, dataclasses.replace(QUICK, freeze_epochs=2))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


def test_a_model_without_a_head_cannot_be_frozen() -> None:
    model = toy_model()
    model[5] = nn.Linear(32, 3)  # type: ignore[index]
    with pytest.raises(
        UsageError, match="a last layer with one output for each of the 2 classes, to train on a frozen host"
    ):
        fit(model, toy_data(), dataclasses.replace(QUICK, freeze_epochs=1))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("added", ["eca", "control"])
def test_attached_modules_have_their_own_learning_rate(added: str, optimizer: Any) -> None:
    """The head has the learning rate of the host."""
    model = toy_model()
    attach(model, "eca" if added == "eca" else lambda channels: Control(channels, 2), "2", example=(1, 1, 8, 8))
    before = state_of(model)
    options = dataclasses.replace(QUICK, epochs=1, optimizer=optimizer, lr=1e-12, attention_lr=0.01, weight_decay=0.01)
    fit(model, toy_data(), options)
    far = {name for name, _ in model.named_parameters() if (model.state_dict()[name] - before[name]).abs().max() > 1e-6}
    assert far
    assert all(CHILD in name for name in far)
    states = []
    for rate in (None, options.lr):
        host = toy_model()
        attach(host, "eca", "2", example=(1, 1, 8, 8))
        fit(host, toy_data(), dataclasses.replace(options, attention_lr=rate))
        states.append(state_of(host))
    assert equal(*states), "without a rate of its own it is the host's"
