"""Transfer the weights of attention from one framework to the other, or between two models of one framework."""

import sys
from collections.abc import Collection, Mapping
from typing import Any

from foveate.bind import states
from foveate.errors import UsageError


def transfer_weights(source: Any, target: Any, *, sites: Mapping[str, str] | None = None) -> None:
    """Transfer the weights of attention from `source` to `target`; each may be a PyTorch or a Keras object.

    Args:
        source: a bound mechanism (`foveate.torch` or `foveate.keras`), or a model that has attention attached.
        target: the same kind of object, of either framework, with the same mechanism, options, start and channels.
        sites: for two models whose sites have different names, {source name: target name}.

    Raises:
        UsageError: the two do not correspond; the target is then unchanged.
    """
    from_, to = _attentions(source, "source"), _attentions(target, "target")
    if ("" in from_ or "" in to) and (sites is not None or from_.keys() != to.keys()):
        raise UsageError(
            expected="two mechanisms, or two models that have attention attached, with their sites",
            received=f"a {type(source).__name__}, a {type(target).__name__} and sites={sites!r}",
            do="leave sites out for two mechanisms; for a mechanism and a model, pass the mechanism inside the model",
        )
    names = dict(zip(from_, from_, strict=True)) if sites is None else sites
    check_sites(names, from_, to, "source", "target")
    pairs = [(name, from_[name], to[other]) for name, other in names.items()]
    for name, one, other in pairs:
        _check_same(name, one, other)
    transfers = [(other, states.read(one)) for _, one, other in pairs]
    for other, weights in transfers:
        states.write(other, weights)


def check_sites(
    sites: Mapping[str, str], source: Collection[str], target: Collection[str] | None, of: str, to: str
) -> None:
    """Raise UsageError unless `sites` maps two sets of names one to one.

    None as a set of names allows any names. `of` and `to` are the words for the two sides.
    """
    if not isinstance(sites, Mapping):
        raise UsageError(expected="sites as a mapping", received=repr(sites), do=f"pass sites={{{of} name: {to} name}}")
    missing = sorted((sites.keys() ^ set(source)) | (set() if target is None else set(target) ^ set(sites.values())))
    if missing or len(set(sites.values())) != len(sites):
        raise UsageError(
            expected=f"a site of the {to} for every site of the {of}",
            received=f"no counterpart of {', '.join(map(repr, missing[:6]))}"
            if missing
            else "two sites with one counterpart",
            do=f"pass sites={{{of} name: {to} name}} for all of them",
        )


def _attentions(holder: Any, role: str) -> dict[str, Any]:
    """Return the attention by site; a holder that is attention itself has the name ""."""
    if states.is_bound(holder):
        found = {"": holder}
    elif is_keras(holder):
        from foveate.surgery.keras.host import KerasHost

        found = KerasHost(holder).attached()
    elif is_torch(holder):
        from foveate.surgery.torch.host import TorchHost

        found = TorchHost(holder).attached()
    else:
        found = {}
    if not found:
        raise UsageError(
            expected=f"attention of foveate.torch or foveate.keras as the {role}, or a model with attention attached",
            received=f"a {type(holder).__name__} without attention",
            do="attach(model, ...) first, or pass the module or layer itself",
        )
    return found


def _check_same(name: str, one: Any, other: Any) -> None:
    states.check_built(one)
    states.check_built(other)
    first, second = ((each.mechanism, each.start, each.channels) for each in (one, other))
    if first != second:
        raise UsageError(
            expected=f"the same attention on both sides{f' of {name!r}' if name else ''}",
            received=f"{_shown(*first)} and {_shown(*second)}",
            do="build both with the same mechanism, options, start and channels",
        )


def _shown(mechanism: Any, start: str, channels: int) -> str:
    return f"{mechanism} of {channels} channels, start={start!r}"


def is_keras(value: Any) -> bool:
    """Return whether a value is a Keras layer or model, without importing Keras."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(value, keras.layers.Layer)


def is_torch(value: Any) -> bool:
    """Return whether a value is a PyTorch module, and not a Keras layer on torch, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module) and not is_keras(value)
