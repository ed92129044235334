"""Attach attention to functional and Sequential Keras models, detach it, and save and load adapter files."""

import os
from collections.abc import Mapping
from typing import Any

from foveate.errors import UsageError
from foveate.parts import Start
from foveate.spec import Mechanism
from foveate.surgery.core import adapters, attaching
from foveate.surgery.core.attaching import AttachRequest
from foveate.surgery.core.plans import Plan
from foveate.surgery.core.selectors import Where
from foveate.surgery.keras.host import KerasHost


def plan(
    model: Any,
    mechanism: str | Mechanism | type[Any],
    where: Where = "residual",
    *,
    example: Any = None,
    start: Start = "identity",
    replace: None = None,
    context: None = None,
    **options: Any,
) -> Plan:
    """Return where `attach` would put attention in the model, and its cost, without changing the model.

    Arguments and errors as in `attach`.
    """
    return attaching.plan(KerasHost(model), AttachRequest(mechanism, where, example, start, options, replace, context))


def attach(
    model: Any,
    mechanism: str | Mechanism | type[Any],
    where: Where = "residual",
    *,
    example: Any = None,
    start: Start = "identity",
    replace: None = None,
    context: None = None,
    optimizer: None = None,
    **options: Any,
) -> Any:
    """Return a new model with attention after each selected layer; it shares the weights of `model`.

    Its layers are objects of their own, so that `get_layer(name).output` is the output with attention.

    Args:
        model: the host, functional or Sequential. It does not change, but training one model trains the other. Models
            inside it that hold a site are rebuilt too. A layer that several models share has one attention everywhere.
            A model of a class with its own constructor becomes a plain functional model.
        mechanism: a name ("cbam"), a `Mechanism`, its class, or a class of `foveate.keras`.
        where: "residual" (the branch of each residual addition), "stage" (the last layer of each resolution, of encoder
            and decoder), a pattern of layer names such as "conv[45]_*_3_bn", "resnet50/*_3_bn" or "**/*_bn", a layer
            type, a predicate `(name, layer, shape (N, C, H, W)) -> bool`, or a list of these.
        example: the shape of the input where the model leaves it open, such as (1, 224, 224, 3), or an array of this
            shape. A model of several inputs takes a list of them, or a dict by the names of the inputs, nested as its
            own inputs are.
        start: "identity" leaves the output unchanged before training; "paper" is the published behaviour.
        replace: nothing else than None: only PyTorch models have their own attention replaced.
        context: nothing else than None: only PyTorch models have attention with the map of another site.
        optimizer: nothing else than None: an optimizer of Keras keeps the variables that it was built with.
        options: options of the mechanism, such as reduction=8.

    Raises:
        UsageError: the model cannot be rebuilt (it has a `call` method of its own, or a constructor and a training step
            of its own), or an argument does not fit. The host is then unchanged.
    """
    if optimizer is not None:
        raise UsageError(
            expected="optimizer: None for a Keras model, whose optimizer keeps the variables that it was built with",
            received=f"a {type(optimizer).__name__}",
            do="compile the new model with a new one: model.compile(type(old).from_config(old.get_config()), ...)",
        )
    return attaching.attach(
        KerasHost(model), AttachRequest(mechanism, where, example, start, options, replace, context)
    )[1]


def detach(model: Any) -> Any:
    """Return a model without attention that shares the weights of this one, which is returned itself if it has none."""
    return KerasHost(model).remove()


def save_adapter(model: Any, path: str | os.PathLike[str]) -> None:
    """Write the attention of the model to a safetensors file, for this host or for the same host in PyTorch.

    The file is written completely or not at all, and states `model.normalisation` where the model has one. Raises
    UsageError without attention, and DataError where the file cannot be written.
    """
    adapters.save(KerasHost(model), path)


def load_adapter(
    model: Any, path: str | os.PathLike[str], *, sites: Mapping[str, str] | None = None, example: Any = None
) -> Any:
    """Return a new model, as `attach` does, with the attention and the weights of an adapter file.

    `sites` maps the adapter's site names to the model's layer names where they differ, for example for an adapter of a
    PyTorch model. `example` is the shape of the input where the model leaves it open. A model without a normalisation
    gets the file's. Raises DataError for a damaged file or another kind of file, and UsageError for a model or a map
    that does not fit, or for a model with another normalisation than the file's.
    """
    return adapters.load(KerasHost(model), path, sites, example)[1]
