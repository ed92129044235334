"""Attaching attention to a live PyTorch model, taking it off again, and adapters that hold the attention alone."""

import os
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from foveate.checks import check_flag
from foveate.spec import Mechanism, Start
from foveate.surgery.core import adapters, attaching
from foveate.surgery.core.host import Factory
from foveate.surgery.core.plans import Plan
from foveate.surgery.core.selectors import Where
from foveate.surgery.torch.example import Example
from foveate.surgery.torch.host import TorchHost
from foveate.torch_utils.names import unwrapped

AnyMechanism: TypeAlias = str | Mechanism | type[Mechanism] | Factory


@torch.inference_mode(False)
def plan(
    model: nn.Module,
    mechanism: AnyMechanism,
    where: Where = "residual",
    *,
    example: Example = None,
    start: Start = "identity",
    **options: Any,
) -> Plan:
    """Return where `attach` would put attention in the model, and at what cost. Changes nothing; arguments and errors as there."""
    return attaching.plan(TorchHost(model), mechanism, where, example, start, options)


@torch.inference_mode(False)  # what is built inside it could not be trained
def attach(
    model: nn.Module,
    mechanism: AnyMechanism,
    where: Where = "residual",
    *,
    example: Example = None,
    start: Start = "identity",
    inplace: bool = True,
    **options: Any,
) -> Plan:
    """Give each chosen module of the model, in place, an attention that works on its output (N, C, H, W); return the plan.

    Args:
        model: the host. Its own state-dict keys stay as they are.
        mechanism: a name ("cbam"), a `Mechanism` or its class, or a function of the channels that returns a new module.
        where: "residual" (the branch that enters each residual addition), "stage" (the end of each run of blocks of one
            resolution), a pattern such as "layer[34].*.bn3", a module type, a predicate `(name, module, shape) ->
            bool`, or a list.
        example: what the model is run on once to see its shapes: an input, a tuple of inputs, or a shape (1, 3, 224,
            224).
        start: "identity" leaves the output of the model equal at first; "paper" is the published behaviour. A factory's
            own affair.
        inplace: let kernels overwrite a site's output where no gradient needs it and nobody else can hold it. The
            numbers are the same.
        options: the mechanism's, such as reduction=8.

    Raises:
        UsageError: for whatever cannot work; the model is then as it was, and so is the random state.
    """
    check_flag("inplace", inplace)
    return attaching.attach(TorchHost(model, inplace=inplace), mechanism, where, example, start, options)[0]


def detach(model: nn.Module) -> None:
    """Take all attention off the model, which then is as before `attach`; nothing happens to a model without attention."""
    TorchHost(model).remove()


def save_adapter(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the attention of the model to a safetensors file, all or nothing; the model may be compiled or wrapped meanwhile.

    The file states `model.normalisation`, where the model carries one.
    Raises UsageError without attention, or for a factory's, and DataError where the file cannot be written.
    """
    adapters.save(TorchHost(unwrapped(model)), path)


@torch.inference_mode(False)
def load_adapter(
    model: nn.Module, path: str | os.PathLike[str], *, sites: Mapping[str, str] | None = None, example: Example = None
) -> Plan:
    """Attach the attention an adapter holds, with its weights; the model then computes what the saved one did.

    `sites` maps the adapter's site names to the model's, where they differ, as those of a Keras model do. Everything is
    checked before the model changes. Raises DataError for a file that is damaged or no adapter, and UsageError for a
    model or a map that does not fit, or a model that carries another normalisation than the file states; one that
    carries none takes the file's.
    """
    return adapters.load(TorchHost(model), path, sites, example)[0]
