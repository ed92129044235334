"""A PyTorch model as a host: attention becomes a child of its site, and a forward hook of the site runs it."""

import fnmatch
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from foveate import kernels, mechanisms
from foveate.bind.torch.attention import Attention, attention
from foveate.cost import Cost
from foveate.errors import UsageError, nearest
from foveate.parts import Start
from foveate.site_names import parted
from foveate.spec import Mechanism
from foveate.surgery.core.checksums import Checksums
from foveate.surgery.core.host import Factory, channels_of, cost_of, inputs_of, shapes_of
from foveate.surgery.core.inputs import arguments
from foveate.surgery.core.selectors import Selector
from foveate.surgery.core.trace import Call
from foveate.surgery.torch import optimizers
from foveate.surgery.torch.attachment import checksums
from foveate.surgery.torch.child import attached, contexts, insert, known_sites, remove
from foveate.surgery.torch.example import probe
from foveate.surgery.torch.probe import is_container, watch
from foveate.surgery.torch.replaced import Replaced
from foveate.torch_utils.cost_counter import CostCounter
from foveate.torch_utils.names import DATA_PARALLEL, is_attention
from foveate.torch_utils.unchanged import as_found, random_state

SLOW = 2**30  # multiply-adds


class TorchHost:
    """A `foveate.surgery.core.host.Host`; `inplace` and `optimizer` are those of `attach`."""

    bound: ClassVar = Attention
    versions: ClassVar[dict[str, str]] = {"torch": torch.__version__}
    random_state = staticmethod(random_state)

    def __init__(self, model: nn.Module, *, inplace: bool = True, optimizer: Optimizer | None = None):
        self.model, self.inplace, self.optimizer = model, inplace, optimizer
        self._run: Any = None

    def read(self, example: Any) -> Selector:
        """Run the model once; return its modules and the trace. Raises UsageError for a model that cannot be a host."""
        check_model(self.model)
        if self.optimizer is not None:
            optimizers.check(self.optimizer, self.model)
        trace = probe(self.model, example)
        self._run = trace.run
        modules = dict(self.model.named_modules())
        idle = frozenset(name for name, module in modules.items() if is_container(module))
        return Selector(trace, modules, nn.Module, "module", ".", idle)

    def attached(self) -> dict[str, nn.Module]:
        """Return the attached attention by the name of its site, without the prefixes of torch.compile."""
        return {name: held.attention for name, held in attached(self.model).items()}

    def replaced(self) -> dict[str, str]:
        """Return the class of each module that attention took the place of, by the name of the site."""
        sites = {name: held.module for name, held in attached(self.model).items() if not held.argument}
        return {name: type(site.replaced).__name__ for name, site in sites.items() if isinstance(site, Replaced)}

    def check_replaces(self) -> None:
        """Do nothing: attention can take the place of modules."""

    def count(self) -> int:
        """Return the number of parameters of the model without its attention."""
        return sum(parameter.numel() for name, parameter in self.model.named_parameters() if not is_attention(name))

    def checksums(self) -> Checksums:
        """Return the precision and a checksum of each of the host's tensors."""
        return checksums(self.model)

    def check_contexts(self) -> None:
        """Do nothing: attention can take the map of another site."""

    def contexts(self) -> dict[str, str]:
        """Return the names of the contexts by the names of their sites."""
        return contexts(self.model)

    def check_factory(self, mechanism: Any) -> None:
        """Raise UsageError unless it is a function; a module is not a factory, though it can be called."""
        if not callable(mechanism) or isinstance(mechanism, nn.Module):
            raise UsageError(
                expected="a mechanism's name, a Mechanism, or a function of the channels that returns a new nn.Module",
                received=repr(mechanism),
                do=f"use one of {', '.join(mechanisms.names())}, or pass lambda channels: YourModule(channels)",
            )

    def make(self, call: Call, mechanism: Mechanism | Factory, start: Start) -> nn.Module:
        """Return new attention with the device, dtype, memory format and mode of its site.

        Raises UsageError where a factory returns something other than a module.
        """
        source = inputs_of(mechanism, call)[0]
        channels = channels_of(source)
        made = attention(mechanism, channels, start=start) if isinstance(mechanism, Mechanism) else mechanism(channels)
        if not isinstance(made, nn.Module):
            do = "let the factory build a new module at each call"
            raise UsageError(expected="a new nn.Module for each site", received=f"a {type(made).__name__}", do=do)
        made = made.to(device=call.device, dtype=call.dtype)
        if _is_channels_last(self.model):
            made = made.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if isinstance(made, Attention):
            made.rank = len(source.shape or ())
        made.train(self.model.get_submodule(parted(call.name)[0]).training)
        return made

    def measure(self, attention: nn.Module, call: Call) -> Cost:
        """Run the attention on zeros of one call's shape; return its cost. Raises UsageError if the shape changes.

        Where ours is slow it runs on tensors without values: between all positions of a large map it takes minutes.
        """
        shape, counter = call.shape or (), CostCounter()
        ours = cost_of(attention.mechanism, call, attention.start) if isinstance(attention, Attention) else None
        if ours is None:
            mode = counter
        else:
            mode = FakeTensorMode(allow_non_fake_inputs=True) if ours.macs > SLOW else nullcontext()
        shapes = shapes_of(getattr(attention, "mechanism", None), call)
        with as_found(attention), torch.no_grad(), kernels.using("reference"), mode:
            y = attention(*(torch.zeros(size, dtype=call.dtype, device=call.device) for size in shapes))
        if not isinstance(y, Tensor) or y.shape != shape:
            output = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise UsageError(
                expected=f"attention that keeps the shape {shape} of {call.name!r}",
                received=f"{type(attention).__name__}, which outputs {output}",
                do="use options that keep the shape, such as out_channels=None and stride=1",
            )
        return ours or counter.cost(attention)

    def needs_batch(self, attention: nn.Module, call: Call) -> bool:
        """Return whether a batch norm inside the attention has one value per channel and sample at this call."""
        norms = [module for module in attention.modules() if isinstance(module, _BatchNorm)]
        alone: list[bool] = []
        handles = [norm.register_forward_pre_hook(lambda _, args: alone.append(_is_single(*args))) for norm in norms]
        try:
            if norms:
                self.measure(attention, call)
        finally:
            for handle in handles:
                handle.remove()
        return any(alone)

    def insert(
        self,
        attentions: Mapping[str, nn.Module],
        replaced: Collection[str] = (),
        contexts: Mapping[str, str] | None = None,
    ) -> nn.Module:
        """Add the attention to each site and return the model; undo everything on any failure."""
        for child in attentions.values():
            if isinstance(child, Attention):
                child.inplace, child.follows_site = self.inplace, True
        sites = {name: self.model.get_submodule(parted(name)[0]) for name in attentions}
        watched = {
            name: attentions[name]
            for name, site in sites.items()
            if name in replaced or next(site.children(), None) is not None
        }
        try:
            insert(self.model, attentions, replaced, contexts or {})
            if watched:
                self._check_calls(watched)
            if self.optimizer is not None:
                optimizers.join(self.optimizer, self.model, attentions.values())
        except BaseException:
            remove(self.model, attentions)
            raise
        return self.model

    def remove(self, sites: str | Sequence[str] = "*") -> nn.Module:
        """Remove the attention of sites by names or patterns; return the model. Raises UsageError for unknown names."""
        if isinstance(self.model, Replaced):
            do = "call detach on the model that holds it"
            raise UsageError(expected="a model", received="a site whose module attention replaced", do=do)
        known = known_sites(self.model)
        patterns = [sites] if isinstance(sites, str) else sites
        chosen = {name for pattern in patterns for name in fnmatch.filter(known, pattern)}
        for pattern in patterns:
            if pattern != "*" and not fnmatch.filter(known, pattern):
                do = nearest(pattern, known) if known else "attach(model, ...) first"
                raise UsageError(expected="the name or pattern of a site with attention", received=repr(pattern), do=do)
        for site, context in self.contexts().items():
            if site not in chosen and context in chosen and self._is_replaced(context):
                raise UsageError(
                    expected=f"the context of {site!r} to stay, or both to be detached",
                    received=f"{context!r} alone, where the module that it replaced would come back",
                    do=f"detach(model, [{context!r}, {site!r}])",
                )
        remove(self.model, chosen)
        return self.model

    def _is_replaced(self, site: str) -> bool:
        return isinstance(self.model.get_submodule(parted(site)[0]), Replaced)

    def _check_calls(self, attentions: Mapping[str, nn.Module]) -> None:
        """Run the model once more and raise UsageError where a site runs the attention as one of its own children."""
        runs: Counter[nn.Module] = Counter()
        handles = [
            child.register_forward_pre_hook(lambda module, _: runs.update([module])) for child in attentions.values()
        ]
        reason = "which runs attention as one of its own children"
        calls: Counter[str] = Counter()
        try:
            trace = watch(self.model, self._run)
            for name in attentions:
                found = arguments(trace, name) if parted(name)[1] else trace.calls
                calls[name] = sum(call.name == name and call.shape is not None for call in found)
        except Exception as error:
            reason = f"which then fails with {type(error).__name__}: {error}"
        finally:
            for handle in handles:
                handle.remove()
        for name, child in attentions.items():
            ran = runs[child] == calls[name] > 0
            if not ran and isinstance(site := self.model.get_submodule(parted(name)[0]), Replaced):
                kind = type(site.replaced).__name__
                raise UsageError(
                    expected=f"a model that calls {name!r}, a {kind}, as its own child, and reads nothing else of it",
                    received=f"one {reason}" if not calls else "one that runs it in another way",
                    do="leave it out by where=, or replace it in the model's code",
                )
            if not ran:
                raise UsageError(
                    expected="a site that does not run a child that is added to it",
                    received=f"{name!r}, a {type(self.model.get_submodule(parted(name)[0])).__name__}, {reason}",
                    do=f"choose a module inside it, such as where='{parted(name)[0]}.*'",
                )


def _is_single(x: Tensor) -> bool:
    return x[0].numel() == x.shape[1]


def check_model(model: nn.Module) -> None:
    """Raise UsageError for a model that cannot be changed in place, or that would not run added attention."""
    wrapper = type(model).__name__
    if any(kind.__module__.partition(".")[0] == "keras" for kind in type(model).__mro__):
        do = "use foveate.keras.attach and foveate.keras.plan"
        raise UsageError(expected="a torch.nn.Module", received=f"a {wrapper} of Keras", do=do)
    if not isinstance(model, nn.Module):
        raise UsageError(expected="a torch.nn.Module", received=f"a {wrapper}", do="pass the model itself")
    attached(model)
    if isinstance(model, DATA_PARALLEL):
        raise UsageError(expected="the bare model", received=wrapper, do="attach to the model first, then wrap it")
    if any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) is not None for m in model.modules()):
        raise UsageError(
            expected="the model before torch.compile", received=f"a compiled {wrapper}", do="attach first, then compile"
        )
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UsageError(
            expected="a model of Python modules",
            received=f"a scripted {wrapper}",
            do="attach first, then export or trace",
        )
    tensors = (*model.parameters(), *model.buffers())
    if any(map(nn.parameter.is_lazy, tensors)):
        raise UsageError(
            expected="a model with all its weights", received="lazy modules", do="run the model once, then attach"
        )
    if any(tensor.is_inference() for tensor in tensors):
        received = f"a {wrapper} made in torch.inference_mode"
        raise UsageError(expected="a model that can be trained", received=received, do="make it outside, then attach")


def _is_channels_last(model: nn.Module) -> bool:
    """Return whether any weight of the model is channels_last in memory and not also contiguous."""
    weights = (weight for weight in model.parameters() if weight.dim() == 4 and not weight.is_contiguous())
    return any(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
