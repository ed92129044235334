"""Optimizers of the user's own loop: the weights of new attention join one, and leave it at detaching."""

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import LBFGS, Muon, Optimizer

from foveate.errors import UsageError

_FIXED = (LBFGS, Muon)  # they look at their parameters when they are made: others would not learn, or fail later
_PER_PARAMETER = ("params", "param_names")


def check(optimizer: Any, model: nn.Module) -> None:
    """Raise UsageError unless weights of the model can join the optimizer and leave it."""
    if not isinstance(optimizer, Optimizer):
        raise UsageError(
            expected="optimizer: a torch.optim.Optimizer",
            received=f"a {type(optimizer).__name__}",
            do="pass the optimizer that trains the model",
        )
    if _held(optimizer).isdisjoint(map(id, model.parameters())):
        raise UsageError(
            expected="an optimizer that holds parameters of the model",
            received=f"a {type(optimizer).__name__} that holds none of them",
            do="make the optimizer of this very model: one of a copy does not train it",
        )
    if isinstance(optimizer, _FIXED):
        raise UsageError(
            expected="an optimizer that takes another group of parameters",
            received=f"a {type(optimizer).__name__}, which keeps the parameters that it was made with",
            do="attach without optimizer=, then make a new optimizer",
        )
    if hasattr(optimizer.step, "_wrapped_by_lr_sched"):
        raise UsageError(
            expected="an optimizer without a scheduler",
            received="one with a scheduler, which knows the learning rates of the present groups only",
            do="change the model first, then make the scheduler",
        )


def join(optimizer: Optimizer, model: nn.Module, attentions: Iterable[nn.Module]) -> None:
    """Add the weights of the model's attention as a new group, with the options of the first group.

    As in `foveate train`, biases, norms and scalars have no weight decay. Where the first group has one, they form a
    second new group. If the optimizer refuses, it stays as it was.
    """
    first, held, count = optimizer.param_groups[0], _held(optimizer), len(optimizer.param_groups)
    options = copy.deepcopy({name: value for name, value in first.items() if name not in _PER_PARAMETER})
    new = {id(parameter) for attention in attentions for parameter in attention.parameters()} - held
    groups: dict[bool, list[Any]] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in new:
            decays = parameter.ndim > 1 or not options.get("weight_decay")
            groups.setdefault(decays, []).append((name, parameter) if "param_names" in first else parameter)
    try:
        for decays, parameters in groups.items():
            optimizer.add_param_group({**options, **({} if decays else {"weight_decay": 0.0}), "params": parameters})
    except BaseException:
        del optimizer.param_groups[count:]
        raise


def leave(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Take parameters out of an optimizer, with their state; a group that this empties goes too."""
    gone = {id(parameter): parameter for parameter in parameters}
    for group in list(optimizer.param_groups):
        stay = [index for index, parameter in enumerate(group["params"]) if id(parameter) not in gone]
        if len(stay) < len(group["params"]):
            group |= {key: [group[key][index] for index in stay] for key in _PER_PARAMETER if key in group}
            if not stay:
                optimizer.param_groups.remove(group)
    for parameter in gone.values():
        optimizer.state.pop(parameter, None)


def _held(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
