"""Bake an attached model: its attention becomes ordinary modules, for tools that rebuild a model without hooks."""

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from foveate.bind.torch.attention import Attention
from foveate.checks import check_flag
from foveate.errors import UsageError, shortened
from foveate.site_names import parted
from foveate.surgery.torch.arguments import Place, Signature, exchange
from foveate.surgery.torch.attachment import records_of
from foveate.surgery.torch.child import AttachedAttention, attached, children_of, remove
from foveate.surgery.torch.example import Example, probe
from foveate.surgery.torch.host import check_model
from foveate.surgery.torch.links import Give, Link, context_names
from foveate.surgery.torch.ordinary import is_mechanism, ordinary
from foveate.surgery.torch.probe import Run
from foveate.surgery.torch.replaced import Replaced, swap
from foveate.torch_utils.names import CHILD, HOST, attached_name, child_of, unwrapped
from foveate.torch_utils.tensors import tensors
from foveate.torch_utils.unchanged import random_state

T = TypeVar("T")
Inputs: TypeAlias = tuple[int, int]
"""How many arguments a call had: by position and by keyword."""
SINGLE = {(1, 0)}
STEPS = ("foveate_dequantize", CHILD, "foveate_quantize")


class AnyCall(nn.Sequential):
    """The sequence for a site that is called with more than one tensor, or whose attention has a context.

    TorchScript cannot compile it.
    """

    link: Link | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Give all arguments to the first module, and what it returns to the others."""
        first, *others = self
        x = first(*args, **kwargs)
        for module in others:
            takes = self.link is not None and module is self._modules.get(CHILD)
            x = module(*self.link.join(x)) if takes else module(x)  # pyright: ignore[reportOptionalMemberAccess]
        return x


class Attended(nn.Module):
    """A module with attention on arguments that it is called with; TorchScript cannot compile it."""

    def __init__(
        self, host: nn.Module, places: dict[str, Place], takes: Mapping[str, Link], gives: Mapping[str, Sequence[Link]]
    ):
        super().__init__()
        self.add_module(HOST, host)
        self.places, self.takes, self.gives = places, takes, gives

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module with what the attention makes of its arguments, as `attend_to_arguments` does."""
        for step in (self._attend_alone, self._attend_to_context):
            for argument, place in self.places.items():
                args, kwargs = exchange(args, kwargs, argument, place, partial(step, argument))
        return self._modules[HOST](*args, **kwargs)  # pyright: ignore[reportOptionalCall]

    def _attend_alone(self, argument: str, x: Any) -> Any:
        x = x if argument in self.takes else self._attend(argument, x)
        for link in self.gives.get(argument, ()):
            link.give(x)
        return x

    def _attend_to_context(self, argument: str, x: Any) -> Any:
        return self._attend(argument, x, self.takes[argument]) if argument in self.takes else x

    def _attend(self, argument: str, x: Any, link: Link | None = None) -> Any:
        for name in STEPS if child_of(argument) in self._modules else ():
            inputs = link.join(x) if link is not None and name == CHILD else (x,)
            x = self.get_submodule(child_of(argument, name))(*inputs)
        return x


@torch.inference_mode(False)
def bake(model: nn.Module, *, example: Example = None, inplace: bool = False, inference: bool = False) -> nn.Module:
    """Return an equal model whose attention is ordinary modules in the ordinary forward, without hooks and kernels.

    Tools that rebuild a model keep it: FX tracing, TorchScript, quantisation, folding of norms. Mechanisms that the
    model calls itself are made ordinary too. The site "layer1.0.bn2" becomes a sequence: "layer1.0.bn2.foveate_host" is
    what it was, "layer1.0.bn2.foveate_attention" the attention. `attached_state_dict` maps the names back.

    Args:
        model: a model with attention; it stays as it is, unless `inplace` is set.
        example: what both models are run on once to see that their outputs are equal, as in `attach`.
        inplace: change the model itself, and return it.
        inference: return a model for inference alone, faster and with Foveate's kernels: norms are folded into
            convolutions; attention, the addition of the shortcut and the activations before and after are joined. It is
            a graph of torch.fx, or has such graphs where the whole cannot be traced.

    Raises:
        UsageError: without attention, or where the baked model does not compute the same (for `inference` but for
            rounding), or cannot be traced; the model is then as it was.
    """
    check_flag("inplace", inplace)
    check_flag("inference", inference)
    if isinstance(model, nn.Module) and unwrapped(model) is not model:
        do = "bake the model that was wrapped, and wrap the result"
        raise UsageError(expected="the model itself", received=f"a wrapper, {type(model).__name__}", do=do)
    check_model(model)
    if not attached(model) and not any(map(is_mechanism, model.modules())):
        raise UsageError(expected="a model with attention", received="one without", do="attach(model, ...) first")
    if inplace and any(children_of(model)):
        do = "leave inplace out, and use the model that bake returns"
        raise UsageError(expected="sites inside the model", received="a model that is a site itself", do=do)
    by_mode = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)
    trains = model.training or any(module.training for module in model.modules() if isinstance(module, by_mode))
    if inference and (inplace or trains):
        raise UsageError(
            expected="a model in eval mode, and inplace=False, for a graph for inference",
            received="inplace=True" if inplace else "a model in train mode",
            do="leave inplace out" if inplace else "call model.eval() first",
        )
    run = probe(model, example).run
    calls, ranks, before = _watched_run(model, run)
    baked = model if inplace else _copied(model)
    undo = _restorer(baked)
    try:
        result = _rebuild(baked, calls, ranks, keep=inference)
        _check_equal(result, run, before)
        if inference:
            from foveate.surgery.torch.inference import for_inference  # torch.fx's tracer is slow to import

            result = for_inference(result)
            for call in (run, run.with_kernels):  # twice, because a graph could keep something from the first call
                _check_equal(result, call, before, rounding=True)
    except BaseException:
        undo()
        raise
    return result


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        says = (str(error).strip().splitlines() or [""])[0]
        raise UsageError(
            expected="a model that copy.deepcopy can copy",
            received=f"one that it cannot: {type(error).__name__}: {says}",
            do="bake it with inplace=True, or first remove what keeps tensors of a graph, such as weight_norm by "
            "torch.nn.utils.remove_weight_norm",
        ) from error


def _rebuild(
    model: nn.Module, calls: Mapping[str, set[Inputs]], ranks: Mapping[str, list[int]], *, keep: bool = False
) -> nn.Module:
    """Put what is ordinary in the place of all mechanisms and sites; return the model, or what takes its place.

    With `keep`, mechanisms stay the modules that they are.
    """
    named, modules = dict(model.named_modules()), list(model.modules())
    attention: dict[nn.Module, list[AttachedAttention]] = {}
    for held in attached(model).values():
        attention.setdefault(held.module, []).append(held)
    new: dict[Any, nn.Module] = {}
    for name, module in named.items():
        if not keep and isinstance(module, Attention) and is_mechanism(module):
            new[module] = ordinary(module, ranks.get(name, [module.rank or 4]))
    contexts, takes = context_names(model), dict[tuple[nn.Module, str], Link]()
    gives: dict[tuple[nn.Module, str], list[Link]] = {}
    for held in (held for one in attention.values() for held in one):
        if held.link is not None:
            link = takes[held.module, held.argument] = held.link.freed()
            context, argument = parted(contexts[held.link])
            gives.setdefault((model.get_submodule(context), argument), []).append(link)
    remove(model)
    for name, site in named.items():
        found = attention.get(site, [])
        if found or any(module is site for module, _ in gives):
            children = {held.argument: new.get(held.attention, held.attention) for held in found}
            here, host = (site.replaced, nn.Identity()) if isinstance(site, Replaced) else (site, site)
            host.training = site.training
            own = _of(site, takes), _of(site, gives)
            new[here] = _ordinary_site(host, children, calls.get(name, SINGLE) == SINGLE, *own)
    swap(modules, new)
    return new.get(model, model)


def _of(site: nn.Module, links: Mapping[tuple[nn.Module, str], T]) -> dict[str, T]:
    """Return what belongs to a site, by argument."""
    return {argument: found for (module, argument), found in links.items() if module is site}


def _ordinary_site(
    site: nn.Module,
    children: Mapping[str, Any],
    single: bool,
    takes: Mapping[str, Link],
    gives: Mapping[str, Sequence[Link]],
) -> nn.Module:
    """Return a site between the attention on its arguments and that on its output, as ordinary modules.

    `takes` and `gives` are the links from contexts and to sites whose context this is, by argument.
    """
    signature, made = Signature(site), site
    before = {argument: child for argument, child in children.items() if argument}
    arguments = {*before, *gives} - {""}
    plain = single and len(before) == 1 and arguments.isdisjoint({*takes, *gives})
    if plain and signature.place(*before) == (0, ()):
        ((argument, child),) = before.items()
        made = nn.Sequential(OrderedDict({**_in_float(child, argument), HOST: site}))
    elif arguments:
        made = Attended(site, {argument: signature.place(argument) for argument in sorted(arguments)}, takes, gives)
        for argument, child in before.items():
            for name, step in _in_float(child, argument).items():
                made.add_module(name, step)
    _as_in(made, site)
    if "" in children:
        steps = {HOST: made, **_in_float(children[""], "")}
        made = _as_in((nn.Sequential if single and "" not in takes else AnyCall)(OrderedDict(steps)), site)
        if "" in takes:
            vars(made)["link"] = takes[""]
    if "" in gives:
        steps = {HOST: made, "foveate_give": Give([*gives[""]])}
        made = _as_in((nn.Sequential if single else AnyCall)(OrderedDict(steps)), site)
    return made


def _in_float(attention: nn.Module, argument: str) -> dict[str, nn.Module]:
    """Return attention which eager quantisation leaves in float, between the two stubs that mark the border."""
    from torch.ao.quantization import DeQuantStub, QuantStub  # slow to import, and needed here alone

    attention.qconfig = None  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    steps = zip(STEPS, (DeQuantStub(), attention, QuantStub()), strict=True)
    return {child_of(argument, name): step for name, step in steps}


def _as_in(made: nn.Module, site: nn.Module) -> nn.Module:
    """Give what was added around a site the site's mode."""
    stubs = [child for name, child in made.named_children() if name.startswith((STEPS[0], STEPS[2]))]
    for module in (made, *stubs) if made is not site else ():
        module.training = site.training
    return made


def _restorer(model: nn.Module) -> Callable[[], None]:
    """Return a function that restores every module's children, hooks, attributes and record of sites."""
    dicts: list[Sequence[dict[Any, Any]]] = [
        (
            *(vars(m), m._modules, m._forward_hooks, m._forward_hooks_with_kwargs, m._forward_pre_hooks),
            *(m._forward_pre_hooks_with_kwargs, *records_of(m)),
        )
        for m in model.modules()
    ]
    copies = [[dict(found) for found in of_one] for of_one in dicts]

    def undo() -> None:
        for of_one, before in zip(dicts, copies, strict=True):
            for found, kept in zip(of_one, before, strict=True):
                found.clear()
                found.update(kept)

    return undo


def _watched_run(model: nn.Module, run: Run) -> tuple[dict[str, set[Inputs]], dict[str, list[int]], Any]:
    """Return how each site and each mechanism was called, by name, the numbers of axes of its maps, and the output."""
    seen, ranks = defaultdict[str, set[Inputs]](set), dict[str, list[int]]()

    def listener(name: str) -> Callable[..., None]:
        def listen(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen[name].add((len(args), len(kwargs)))
            found = [map_.dim() for map_ in (*args, *kwargs.values()) if isinstance(map_, Tensor)]
            ranks[name] = max(found, ranks.get(name, []), key=len)

        return listen

    handles = [
        module.register_forward_pre_hook(listener(name), with_kwargs=True)
        for name, module in model.named_modules()
        if any(children_of(module)) or is_mechanism(module)
    ]
    try:
        output = _seeded(run, model)
        return dict(seen), ranks, output
    finally:
        for handle in handles:
            handle.remove()


def _seeded(run: Callable[[nn.Module], Any], model: nn.Module) -> Any:
    """Return what a run returns, or else what the model itself does; from one random state, which is then as before."""
    restore, outputs = random_state(), list[Any]()
    handle = model.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        torch.manual_seed(0)
        made = run(model)
        return outputs if made is None else made
    finally:
        handle.remove()
        restore()


def _check_equal(baked: nn.Module, run: Callable[[nn.Module], Any], before: Any, *, rounding: bool = False) -> None:
    """Raise UsageError unless the baked model gives the same tensors, with `rounding` up to an error of rounding."""
    do = "attach to a module that the model only calls, or use torch.export, which sees hooks"
    expected = "a model that only calls its sites, and never reads their attributes"
    if rounding:
        do = "leave inference out: bake(model) alone computes the same"
        expected = "a network that computes the same when its norms are folded and its blocks are joined"
    try:
        after = _seeded(run, baked)
    except UsageError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        received = f"one that fails when baked: {type(error).__name__}: {lines[0]}"
        raise UsageError(expected=expected, received=received, do=do) from error
    wanted, found = tensors(before), tensors(after)
    if not wanted:
        raise UsageError(
            expected="an output with tensors, to see that the baked model computes the same",
            received=f"a {type(before).__name__} in which none was found",
            do="bake the part of the model that returns tensors",
        )
    if len(wanted) != len(found) or not all(map(_close if rounding else _same, wanted, found)):
        sites = [
            attached_name(name.removesuffix(f".{HOST}")) for name, _ in baked.named_modules() if name.endswith(HOST)
        ]
        received = f"one whose outputs change when baked, with the sites {shortened(sites)}"
        raise UsageError(expected=expected, received=received, do=do)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and (a.is_meta or torch.equal(a.nan_to_num(), b.nan_to_num()))


def _close(a: Tensor, b: Tensor) -> bool:
    """Return whether two outputs differ, in the mean of squares, by less than a ten-thousandth or 8 roundings."""
    if a.shape != b.shape or a.is_meta or not a.numel():
        return a.shape == b.shape
    if not a.is_floating_point():
        return torch.equal(a, b)
    one, other = a.double().nan_to_num(), b.double().nan_to_num()
    bound = max(1e-4, 8 * torch.finfo(a.dtype).eps)
    return bool((one - other).norm() <= bound * one.norm())
