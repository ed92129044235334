"""Attaching attention to functional and Sequential Keras models, the way back, and adapters, which are those of PyTorch models."""

import os
from collections.abc import Mapping
from typing import Any

from foveate.spec import Mechanism, Start
from foveate.surgery.core import adapters, attaching
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
    **options: Any,
) -> Plan:
    """Return where `attach` would put attention in the model, and at what cost. Changes nothing; arguments and errors as there."""
    return attaching.plan(KerasHost(model), mechanism, where, example, start, options)


def attach(
    model: Any,
    mechanism: str | Mechanism | type[Any],
    where: Where = "residual",
    *,
    example: Any = None,
    start: Start = "identity",
    **options: Any,
) -> Any:
    """Return a new model that shares the layers and weights of a functional or Sequential one, with attention after each chosen layer.

    Args:
        model: the host, which stays as it is; training one trains the other. Models inside it that hold a site are
            rewritten likewise; a layer that models share has one attention wherever it runs.
        mechanism: a name ("cbam"), a `Mechanism`, its class, or a class of `foveate.keras`.
        where: "residual" (the branch that enters each residual addition), "stage" (the end of each run of layers of one
            resolution), a pattern of layer names such as "conv[45]_*_3_bn", "resnet50/*_3_bn" or "**/*_bn", a layer
            type, a predicate `(name, layer, shape (N, C, H, W)) -> bool`, or a list.
        example: the shape of the input where the model leaves it open, such as (1, 224, 224, 3).
        start: "identity" leaves the output equal at first; "paper" is the published behaviour.
        options: the mechanism's, such as reduction=8.

    Raises:
        UsageError: a model that cannot be rewritten (subclassed), or whatever else cannot work; the host is then as it
            was.
    """
    return attaching.attach(KerasHost(model), mechanism, where, example, start, options)[1]


def detach(model: Any) -> Any:
    """Return a model without the attached attention, which shares the layers of this one; the model itself where it has none."""
    return KerasHost(model).remove()


def save_adapter(model: Any, path: str | os.PathLike[str]) -> None:
    """Write the attention of the model to a safetensors file, all or nothing, for this host or the same one in PyTorch.

    The file states `model.normalisation`, where the model carries one. Raises UsageError without attention, and
    DataError where the file cannot be written.
    """
    adapters.save(KerasHost(model), path)


def load_adapter(
    model: Any, path: str | os.PathLike[str], *, sites: Mapping[str, str] | None = None, example: Any = None
) -> Any:
    """Return a new model, as `attach` does, with the attention that an adapter holds and its weights.

    `sites` maps the adapter's site names to the model's layers, where they differ, as those of a PyTorch model do.
    `example` is the shape of the input where the model leaves it open. Raises DataError for a file that is damaged or
    no adapter, and UsageError for a model or a map that does not fit, or a model that carries another normalisation
    than the file states; one that carries none takes the file's.
    """
    return adapters.load(KerasHost(model), path, sites, example)[1]
