"""Attach attention to a PyTorch model, detach it, and save and load adapter files."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from foveate.bind import states
from foveate.checks import check_flag
from foveate.errors import HostMovedWarning, ReductionWarning, UsageError, shortened
from foveate.parts import Start, weights
from foveate.spec import Mechanism
from foveate.surgery.core import adapters, attaching
from foveate.surgery.core.attaching import AttachRequest
from foveate.surgery.core.host import Factory
from foveate.surgery.core.plans import Plan
from foveate.surgery.core.replacing import Replace
from foveate.surgery.core.selectors import Where
from foveate.surgery.torch import attachment, optimizers
from foveate.surgery.torch.child import attached
from foveate.surgery.torch.example import Example
from foveate.surgery.torch.host import TorchHost
from foveate.torch_utils.names import is_attention, unwrapped

AnyMechanism: TypeAlias = str | Mechanism | type[Mechanism] | Factory


@torch.inference_mode(False)
def plan(
    model: nn.Module,
    mechanism: AnyMechanism,
    where: "Where | None" = None,
    *,
    example: Example = None,
    start: Start = "identity",
    replace: "Replace | None" = None,
    context: "Where | None" = None,
    **options: Any,
) -> Plan:
    """Return where `attach` would put attention in the model, and its cost, without changing the model.

    Arguments and errors as in `attach`.
    """
    return attaching.plan(TorchHost(model), AttachRequest(mechanism, where, example, start, options, replace, context))


@torch.inference_mode(False)  # modules built in inference mode could not be trained
def attach(
    model: nn.Module,
    mechanism: AnyMechanism,
    where: "Where | None" = None,
    *,
    example: Example = None,
    start: Start = "identity",
    replace: "Replace | None" = None,
    context: "Where | None" = None,
    inplace: bool = True,
    optimizer: Optimizer | None = None,
    **options: Any,
) -> Plan:
    """Attach attention in place to the output (N, C, H, W) or an argument of each selected module; return the plan.

    In 1-D and 3-D networks, with outputs (N, C, L) and (N, C, D, H, W), use a mechanism that weighs channels.

    Args:
        model: the host. Its own state-dict keys do not change.
        mechanism: a name ("cbam"), a `Mechanism` or its class, or a function that takes the number of channels and
            returns a new module (a factory).
        where: "residual" (the default: the branch of each residual addition), "stage" (the last block of each
            resolution, of encoder and decoder), "skip" (the maps that cross from the encoder to the decoder), a pattern
            such as "layer[34].*.bn3", an argument of modules such as "decoder.blocks.*:skip" or
            "decoder.blocks.*:input" (the first map that they are called with), a module type, a predicate
            `(name, module, shape) -> bool`, or a list of these.
        example: what the model is called with in one probe run, by default a random input of a usual size. A tensor, a
            list or another object is the only argument; a shape such as (1, 3, 224, 224) stands for a random tensor; a
            tuple holds the arguments, a dict the keyword arguments, and `((x,), {"mask": m})` both. A function gets the
            model and runs it: `lambda model: model(x, return_loss=False)`. The model runs in eval mode, or where that
            fails in training mode.
        start: "identity" leaves the output of the model unchanged before training; "paper" is the published behaviour.
            Has no effect on a factory.
        replace: put the attention in the place of modules of the model, such as the SE of EfficientNet: their class,
            its name ("SqueezeExcitation"), or a list of these. `where` then says which of them: those that it selects,
            or that are inside of what it selects, by default all. With the identity start the model computes what it
            would without these modules, and not what it did. `detach` puts them back, with their weights.
        context: where the second map of a two-input mechanism comes from, named as in `where`: one site for all, or as
            many as `where` selects, which run before. With "cross", the site's map asks (queries) and is added to, and
            the context gives keys and values. With "attention_gate", the context gates the site's map. Without it, a
            map attends to itself.
        inplace: let kernels overwrite a site's output where no gradient needs it and no other code can hold it. The
            results are the same.
        optimizer: the optimizer that trains the model, made before. The new weights join it as a group with the options
            of its first group, but without weight decay for biases, norms and scalars. The state of the other weights
            does not change.
        options: options of the mechanism, such as reduction=8.

    Raises:
        UsageError: an argument does not fit, the model cannot get attention, or the optimizer holds none of the model's
            parameters, has a scheduler already, or takes no more groups. The model, the optimizer and the random state
            are then unchanged.
    """
    check_flag("inplace", inplace)
    request = AttachRequest(mechanism, where, example, start, options, replace, context)
    return attaching.attach(TorchHost(model, inplace=inplace, optimizer=optimizer), request)[0]


def detach(model: nn.Module, sites: str | Sequence[str] = "*", *, optimizer: Optimizer | None = None) -> None:
    """Remove all attention, so that the model is as before `attach`, or only that of sites named by names or patterns.

    Modules that attention replaced come back with their weights. It also forgets sites whose modules were replaced or
    removed since. A model without attention does not change. The weights of the attention leave the `optimizer`, with
    their state. Raises UsageError for a name or pattern that matches no site, and for an optimizer as `attach` does.
    """
    before: list[nn.Parameter] = []
    if optimizer is not None:
        optimizers.check(optimizer, model)
        before = [parameter for name, parameter in model.named_parameters() if is_attention(name)]
    TorchHost(model).remove(sites)
    if optimizer is not None:
        kept = set(model.parameters())
        optimizers.leave(optimizer, (parameter for parameter in before if parameter not in kept))


def save_adapter(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the attention of the model, which may be compiled or wrapped, to a safetensors file.

    The file is written completely or not at all, and states `model.normalisation` where the model has one. Warns with
    HostMovedWarning if the host changed since attaching or freezing, because the file holds only the attention.
    Raises UsageError without attention, for a site that lost its attention, and for a factory's or pruned modules, and
    DataError where the file cannot be written.
    """
    model = unwrapped(model)
    _check_unpruned(model)
    adapters.save(TorchHost(model), path)
    if moved := attachment.moved(model):
        warnings.warn(
            f"the host is not what it was when attention was attached: {shortened(moved)}. The adapter holds "
            "only the attention: save host_state_dict(model) beside it, or call freeze_host(model) before training",
            HostMovedWarning,
            stacklevel=2,
        )


@torch.inference_mode(False)
def load_adapter(
    model: nn.Module, path: str | os.PathLike[str], *, sites: Mapping[str, str] | None = None, example: Example = None
) -> Plan:
    """Attach the attention of an adapter file, with its weights; the model then computes what the saved model computed.

    `sites` maps the adapter's site names to the model's where they differ, for example for an adapter of a Keras model.
    Everything is checked before the model changes. A model without a normalisation gets the file's. Warns with
    HostMovedWarning if weights of the host are not those it had when the adapter was saved. Raises DataError for a
    damaged file or another kind of file, and UsageError for a model or a map that does not fit, or for a model with
    another normalisation than the file's.
    """
    return adapters.load(TorchHost(model), path, sites, example)[0]


def _check_unpruned(model: nn.Module) -> None:
    """Raise UsageError for attention with other weights than its options make; a file cannot describe it."""
    for name, held in attached(model).items():
        module = held.attention
        if not states.is_bound(module):
            continue
        with warnings.catch_warnings(action="ignore", category=ReductionWarning):
            whole = weights(module.mechanism.parts(module.channels))
        found = {key: shape for key, shape in states.shapes(module).items() if not key.endswith(adapters.COUNT)}
        if odd := [key for key in {**whole, **found} if whole.get(key) != found.get(key)]:
            raise UsageError(
                expected="attention with the weights that its mechanism and options make",
                received=f"{name!r}, an {type(module).__name__} with other weights: {shortened(odd)}",
                do="save model.state_dict() instead; for masks of torch.nn.utils.prune, call prune.remove first",
            )
