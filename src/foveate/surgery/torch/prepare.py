"""Making a plan and building its attention beside the model, which stays as it is."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import torch
from torch import nn

from foveate import cost, kernels, mechanisms
from foveate.bind.torch import Attention, attention
from foveate.cost import Cost
from foveate.errors import ReductionWarning, UsageError
from foveate.spec import Mechanism, Start
from foveate.surgery.core.plans import Plan, Site, describe
from foveate.surgery.core.trace import Call, Trace
from foveate.surgery.torch.child import attached
from foveate.surgery.torch.example import Example, probe
from foveate.surgery.torch.sites import Where, choose
from foveate.torch_utils.cost_counter import CostCounter
from foveate.torch_utils.names import CHILD, DATA_PARALLEL, is_attention
from foveate.torch_utils.unchanged import as_found, random_state

Factory: TypeAlias = Callable[[int], nn.Module]
AnyMechanism: TypeAlias = str | Mechanism | type[Mechanism] | Factory


@dataclass(frozen=True)
class Prepared:
    """A plan with all that is needed to carry it out."""

    plan: Plan
    trace: Trace
    attentions: dict[str, nn.Module]


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
    restore = random_state()
    try:
        return prepare(model, mechanism, where, example=example, start=start, **options).plan
    finally:
        restore()


def prepare(model: nn.Module, mechanism: AnyMechanism, where: Where, *, example: Example, start: Start, **options: Any) -> Prepared:
    """Choose the sites and build their attention beside the model, which stays as it is. Raises UsageError."""
    check_host(model)
    label, settings, make = _maker(mechanism, start, options)
    trace = probe(model, example)
    calls = choose(trace, dict(model.named_modules()), where)
    sites, attentions = build(model, trace, calls, lambda call: make(_channels(call)))
    return Prepared(Plan(label, settings, start, describe(where), count_host(model), sites), trace, attentions)


def build(
    model: nn.Module, trace: Trace, calls: Iterable[Call], make: Callable[[Call], nn.Module]
) -> tuple[list[Site], dict[str, nn.Module]]:
    """Build the attention of each site with its device, dtype, memory format and mode, and try it. Raises UsageError."""
    sites: list[Site] = []
    attentions: dict[str, nn.Module] = {}
    channels_last = any(
        weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        for weight in model.parameters()
    )
    for call in calls:
        site = model.get_submodule(call.name)
        if hasattr(site, CHILD):
            raise UsageError(
                expected="a site without attention",
                received=f"{call.name!r}, which has a {type(getattr(site, CHILD)).__name__} attached",
                do="detach(model) first, or choose other sites",
            )
        module = make(call)
        if not isinstance(module, nn.Module) or module in attentions.values():
            received = "the same module twice" if isinstance(module, nn.Module) else f"a {type(module).__name__}"
            raise UsageError(expected="a new nn.Module for each site", received=received, do="let the factory build one at each call")
        module = module.to(device=call.device, dtype=call.dtype)
        module = module.to(memory_format=torch.channels_last) if channels_last else module  # pyright: ignore[reportCallIssue]
        module.train(site.training)
        costs = [_try(module, again) for again in trace.calls if again.name == call.name]
        attentions[call.name] = module
        sites.append(Site(call.name, call.shape or (), replace(sum(costs, Cost()), parameters=costs[0].parameters)))
    return sites, attentions


def check_host(model: nn.Module) -> None:
    """Refuse what cannot be changed in place, or would not notice. Raises UsageError."""
    attached(model)
    wrapper = type(model).__name__
    if isinstance(model, DATA_PARALLEL):
        raise UsageError(expected="the bare model", received=wrapper, do="attach to the model first, then wrap it")
    if any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in model.modules()):
        raise UsageError(expected="the model before torch.compile", received=f"a compiled {wrapper}", do="attach first, then compile")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UsageError(expected="a model of Python modules", received=f"a scripted {wrapper}", do="attach first, then export or trace")
    tensors = (*model.parameters(), *model.buffers())
    if any(map(nn.parameter.is_lazy, tensors)):
        raise UsageError(expected="a model with all its weights", received="lazy modules", do="run the model once, then attach")
    if any(tensor.is_inference() for tensor in tensors):
        received = f"a {wrapper} made in torch.inference_mode"
        raise UsageError(expected="a model that can be trained", received=received, do="make it outside, then attach")


def count_host(model: nn.Module) -> int:
    """Count the parameters of the model without attention."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not is_attention(name))


def _maker(mechanism: Any, start: Start, options: dict[str, Any]) -> tuple[str, dict[str, Any], Factory]:
    if isinstance(mechanism, type) and issubclass(mechanism, Attention):
        mechanism = mechanism.kind
    bound = mechanisms.resolve(mechanism, **options)
    if bound is not None:
        return bound.name, bound.options(), lambda channels: attention(bound, channels, start=start)
    if not callable(mechanism) or isinstance(mechanism, nn.Module):
        raise UsageError(
            expected="a mechanism's name, a Mechanism, or a function of the channels that returns a new nn.Module",
            received=repr(mechanism),
            do=f"use one of {', '.join(mechanisms.names())}; for a module of your own pass what builds it, lambda channels: ...",
        )
    if options:
        raise UsageError(expected="options of a mechanism", received=f"{options} with a factory", do="set them inside the factory")
    return describe(mechanism), {}, cast(Factory, mechanism)


def _try(module: nn.Module, call: Call) -> Cost:
    """Run the attention on zeros in the place of one call and return its cost. Raises UsageError when it changes the shape."""
    shape = call.shape or ()
    x = torch.zeros(shape, dtype=call.dtype, device=call.device)
    with as_found(module), torch.no_grad(), kernels.using("reference"), CostCounter() as counter:
        y = module(x)
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        raise UsageError(
            expected=f"attention that keeps the shape {shape} of {call.name!r}",
            received=f"{type(module).__name__}, which gives {tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__}",
            do="use options that keep the channels, such as out_channels=None",
        )
    if not isinstance(module, Attention):
        return counter.cost(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ReductionWarning)  # given once, when the module was built
        return cost.measure(module.mechanism, shape, start=module.start)


def _channels(call: Call) -> int:
    return (call.shape or (0, 0))[1]
