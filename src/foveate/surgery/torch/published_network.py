"""Load the weights of a whole published network into a host with attention attached: all of them, or none."""

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from foveate import mechanisms
from foveate.bind import states
from foveate.bind.published import arrays, change_for, check_start, is_of, listed, published_weights
from foveate.bind.torch.attention import Attention
from foveate.bind.torch.attention import attention as bound
from foveate.bind.weight_layouts import Arrays
from foveate.errors import ReductionWarning, UsageError, shortened
from foveate.surgery.torch.child import attached, exchange_attention
from foveate.surgery.torch.host_state import host_state_dict, load_host_state_dict
from foveate.torch_utils.names import CHILD, is_attention, plain_name, unwrapped
from foveate.torch_utils.unchanged import random_state

LEVELS = ("state_dict", "model", "model_state_dict", "net")  # of a checkpoint, where its state dict may be
SIZES = {"reduction", "kernel_size"}
COUNT = ".num_batches_tracked"
SHORTCUTS = {"downsample", "shortcut"}


def load_network(model: nn.Module, state_dict: Mapping[str, Any], layout: str | None, sites: Mapping[str, str]) -> str:
    """Load the weights of the host and of every site; return the names of the layouts. Raises UsageError."""
    model = unwrapped(model)
    found: dict[str, Any] = {name: held.attention for name, held in attached(model).items()}
    for name, attention in found.items():
        _check_mechanism(name, attention)
    if unknown := set(sites.values()) - found.keys():
        do = f"pass sites={{their name: one of {shortened(list(found))}}}"
        raise UsageError(expected="sites with attention", received=shortened(sorted(unknown)), do=do)
    whole = host_state_dict(model)
    host = {key: value for key, value in whole.items() if key in model.state_dict()}  # without what was replaced
    saved = _without_wrappers(arrays(_state_dict(state_dict)), host)
    weights = _sort(model, host, found, _as_numbered_here(model, found, saved), sites)
    new, names = _fit(found, weights, layout)
    weights.check(model, found)
    load_host_state_dict(model, {**whole, **{key: torch.as_tensor(np.array(one)) for key, one in weights.host.items()}})
    for name, (own, resized) in new.items():
        states.write(resized or found[name], own)
    exchange_attention(model, {name: resized for name, (_, resized) in new.items() if resized is not None})
    return ", ".join(dict.fromkeys(names))


@dataclass
class _Sorted:
    """What belongs to the host, what belongs to each site, what has no place, and what is wrong, with its cure."""

    host: Arrays = field(default_factory=dict)
    sites: dict[str, Arrays] = field(default_factory=dict)
    blocks: dict[str, Arrays] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)

    def check(self, model: nn.Module, found: Mapping[str, Any]) -> None:
        """Raise one UsageError for all that is wrong."""
        attention, keys = {}, []
        for block, weights in (part for whole in self.blocks.items() for part in _parts(*whole)):
            if _mechanisms(weights):
                attention[block] = weights
            else:
                keys += [_joined(block, key) for key in weights]
        if keys:
            self.wrong[f"weights that the model has no place for: {shortened(keys)}"] = (
                "build the host of these weights, or remove from the state dict what it does not need"
            )
        if attention:
            kinds = " or ".join(dict.fromkeys(repr(name) for rest in attention.values() for name in _mechanisms(rest)))
            places = shortened([_joined(block, next(iter(rest))) for block, rest in attention.items()])
            where = _suggested(model, attention)
            self.wrong[f"attention where the model has no site, or several: {places}"] = (
                f"the names suggest {kinds}{f' at where={where!r}' if where else ''}; attach it with start='paper', "
                "and pass sites={their name: your site} where the names do not show the site"
            )
        if not found and not attention:
            self.wrong["a model without attention"] = "attach(model, ...) first, with start='paper'"
        if empty := [name for name in found if name not in self.sites]:
            self.wrong[f"no weights for the sites {shortened(empty)}"] = (
                "detach(model, names) from sites that the published network does not have"
            )
        if self.wrong:
            raise UsageError(
                expected="weights for every tensor of the host and for every site, and no others",
                received="\n".join(self.wrong),
                do="; ".join(dict.fromkeys(self.wrong.values())),
            )


def _check_mechanism(name: str, attention: Any) -> None:
    if not states.is_bound(attention):
        raise UsageError(
            expected="mechanisms of the catalogue, whose published names are known",
            received=f"a {type(attention).__name__} at {name!r}",
            do="load it with model.load_state_dict",
        )
    check_start(attention)


def _state_dict(checkpoint: Any) -> Any:
    """Return the state dict inside a checkpoint, such as {"epoch": 90, "state_dict": {...}}, or what was given."""
    while isinstance(checkpoint, Mapping) and not any(hasattr(value, "__array__") for value in checkpoint.values()):
        inner = next((checkpoint[key] for key in LEVELS if isinstance(checkpoint.get(key), Mapping)), None)
        if inner is None:
            break
        checkpoint = inner
    return checkpoint


def _without_wrappers(saved: Arrays, host: Mapping[str, Any]) -> Arrays:
    """Take off what wrappers put before the host's names, such as "module." or "backbone."; heads may have another."""
    children = {key.partition(".")[0] for key in host}
    ends = {key: next((rest for rest in _rests(key, children) if rest in host), None) for key in saved}
    wrappers = Counter(key.removesuffix(rest) for key, rest in ends.items() if rest is not None)
    of = {key: max((wrapper for wrapper in wrappers if key.startswith(wrapper)), key=len, default="") for key in saved}
    renamed: Arrays = {}
    for key in sorted(saved, key=lambda key: -wrappers[of[key]]):
        rest = key[len(of[key]) :]
        renamed[key if rest in renamed else rest] = saved[key]
    return renamed


def _rests(key: str, children: set[str]) -> Iterator[str]:
    """Yield a name, then what is left of it without leading names that are no children of the host."""
    yield key
    while key and key.partition(".")[0] not in children:
        key = key.partition(".")[2]
        yield key


def _as_numbered_here(model: nn.Module, found: Mapping[str, Any], saved: Arrays) -> Arrays:
    """Rename what stands in a sequence after a published mechanism, which the host's sequence does not have.

    The attention that a site "conv.5" has here is "conv.6" there, and "conv.6" here is "conv.7" there.
    """
    modules = {plain_name(name): module for name, module in model.named_modules()}
    for site, attention in found.items():
        names = site.split(".")
        for depth in range(len(names), 0, -1):
            parent, last = ".".join(names[: depth - 1]), names[depth - 1]
            if not isinstance(modules.get(parent), nn.Sequential) or not last.isdecimal():
                continue
            inside = re.compile(re.escape(_joined(parent, "")) + r"(\d+)\.(.+)")
            theirs = {
                m[2]: value
                for key, value in saved.items()
                if (m := inside.fullmatch(key)) and int(m[1]) == int(last) + 1
            }
            if theirs and is_of(type(attention.mechanism), theirs):
                saved = dict(_moved(key, value, inside, parent, int(last), site) for key, value in saved.items())
                break
    return saved


def _moved(key: str, value: Any, inside: re.Pattern[str], parent: str, last: int, site: str) -> tuple[str, Any]:
    match = inside.fullmatch(key)
    if match is None or int(match[1]) <= last:
        return key, value
    number, rest = int(match[1]), match[2]
    return (_joined(site, f"{CHILD}.{rest}") if number == last + 1 else _joined(parent, f"{number - 1}.{rest}")), value


def _sort(
    model: nn.Module, host: Mapping[str, Any], found: Mapping[str, Any], saved: Arrays, sites: Mapping[str, str]
) -> _Sorted:
    """Sort the weights into those of the host, of the sites, and of blocks of the host without a site."""
    result = _Sorted()
    modules = {plain_name(name) for name, _ in model.named_modules() if not is_attention(name)}
    for key, value in saved.items():
        named = next((their for their in sites if f".{their}." in f".{key}"), None)
        if named is not None:
            result.sites.setdefault(sites[named], {})[f".{key}".partition(f".{named}.")[2]] = value
        elif key in host:
            result.host[key] = value
        else:
            block = next(name for name in _starts(key) if name in modules)
            result.blocks.setdefault(block, {})[key[len(block) :].lstrip(".")] = value
    for block in sorted(result.blocks, key=lambda block: -block.count(".")):
        inside = [site for site in found if site == block or site.startswith(_joined(block, ""))]
        if len(inside) == 1 and inside[0] not in result.sites:
            result.sites[inside[0]] = result.blocks.pop(block)
    missing = [key for key in host if key not in result.host and not key.endswith(COUNT)]
    if missing:
        result.wrong[f"no weights for the host's {shortened(missing)}"] = (
            "build the host of these weights; for a part of a model, pass the part, such as model.backbone"
        )
    odd = [
        f"{key} {tuple(value.shape)} for {tuple(host[key].shape)}"
        for key, value in result.host.items()
        if tuple(value.shape) != tuple(host[key].shape)
    ]
    if odd:
        result.wrong[f"weights of other shapes: {shortened(odd)}"] = (
            "build the host of these weights, with as many classes; put a head of your own on after loading"
        )
    return result


def _fit(
    found: Mapping[str, Any], weights: _Sorted, layout: str | None
) -> tuple[dict[str, tuple[Arrays, Attention | None]], list[str]]:
    """Return the weights of each site, a new module where the sizes differ, and the layouts; note what is wrong."""
    new: dict[str, tuple[Arrays, Attention | None]] = {}
    names: list[str] = []
    wrong: dict[tuple[str, str], list[str]] = {}
    for site, own in weights.sites.items():
        attention, resized = found[site], None
        try:
            converted, name = published_weights(attention, own, layout)
        except UsageError as error:
            change = change_for(attention, own, layout)
            if not change or not change.keys() <= SIZES:
                received = f"those of a module with {listed(change)}" if change else error.received
                do = f"detach(model), and attach it with {listed(change)}" if change else error.do
                wrong.setdefault((received, do), []).append(site)
                continue
            resized = _resized(attention, change)
            converted, name = published_weights(resized, own, layout)
        new[site] = converted, resized
        names.append(name)
    for (received, do), where in wrong.items():
        weights.wrong[f"weights that do not fit the attention at {shortened(where)}: {received}"] = do
    return new, names


def _resized(attention: Attention, change: Mapping[str, Any]) -> Attention:
    """Return new attention with other options, which is used as the given one is; keep the random state."""
    first, mechanism = next(attention.parameters()), mechanisms.require(attention.mechanism, **change)
    common: dict[str, Any] = {"start": attention.start, "device": first.device, "dtype": first.dtype}
    restore = random_state()
    try:
        with warnings.catch_warnings(action="ignore", category=ReductionWarning):
            new = bound(mechanism, attention.channels, **common)
    finally:
        restore()
    new.inplace, new.follows_site = attention.inplace, attention.follows_site
    new.requires_grad_(first.requires_grad)
    return new.train(attention.training)


def _parts(block: str, weights: Arrays) -> list[tuple[str, Arrays]]:
    """Return a block's weights as one mechanism where they are one, else by the first part of their names."""
    if _mechanisms(weights):
        return [(block, weights)]
    parts: dict[str, Arrays] = {}
    for key, value in weights.items():
        first, _, rest = key.partition(".") if "." in key else ("", "", key)
        parts.setdefault(_joined(block, first) if first else block, {})[rest] = value
    return list(parts.items())


def _mechanisms(weights: Arrays) -> list[str]:
    return [name for name in mechanisms.names() if is_of(name, weights)]


def _suggested(model: nn.Module, blocks: Collection[str]) -> list[str]:
    """Return names or patterns of the modules after which published blocks have their attention."""
    modules = {plain_name(name): module for name, module in model.named_modules() if not is_attention(name)}
    sites = [end for end in (_end(modules, block) for block in blocks) if end]
    patterns: list[str] = []
    for pattern in dict.fromkeys(map(_pattern, sites)):
        meant = [site for site in sites if _pattern(site) == pattern]
        patterns += [pattern] if set(meant) == {name for name in modules if _pattern(name) == pattern} else meant
    return patterns


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def _end(modules: Mapping[str, nn.Module], block: str) -> str:
    """Return the last norm of a block, apart from shortcuts; in a sequence, the module before."""
    parent, _, last = block.rpartition(".")
    if block not in modules:
        return _end(modules, parent) if parent else ""
    if isinstance(modules.get(parent), nn.Sequential) and last.isdecimal() and not modules[block]._modules:
        return _joined(parent, str(int(last) - 1))
    norms = [
        name
        for name, module in modules.items()
        if name.startswith(_joined(block, ""))
        and "Norm" in type(module).__name__
        and not SHORTCUTS & {*name.split(".")}
    ]
    return norms[-1] if norms else block


def _joined(name: str, rest: str) -> str:
    return f"{name}.{rest}" if name else rest


def _starts(key: str) -> Iterator[str]:
    """Yield the name before each of the dots in a key, the longest first, and then ""."""
    while key:
        key = key.rpartition(".")[0]
        yield key
