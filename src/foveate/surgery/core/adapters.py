"""Save the attention of a model to an adapter file and attach it from there, for every framework."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foveate.bind import states
from foveate.errors import HostMovedWarning, UsageError, shortened
from foveate.normalisation import normalisation_of, set_normalisation
from foveate.surgery.core import contexts, replacing
from foveate.surgery.core.adapter_file import Adapter, Entry, damaged, read_adapter, write_adapter
from foveate.surgery.core.attaching import build, check_free
from foveate.surgery.core.checksums import changed
from foveate.surgery.core.host import Host, channels_of, inputs_of
from foveate.surgery.core.plans import Plan
from foveate.surgery.core.selectors import Selector
from foveate.surgery.core.trace import Call
from foveate.surgery.core.transfer import check_sites

COUNT = "num_batches_tracked"  # of a batch norm in torch; Keras has none


def save(host: Host, path: str | os.PathLike[str]) -> None:
    """Write the attention of the host to an adapter file. Raises UsageError and DataError as `write_adapter`."""
    images, tensors = normalisation_of(host.model), host.checksums()
    write_adapter(Path(path), host.attached(), images, tensors, host.replaced(), host.contexts(), **host.versions)


def load(host: Host, path: str | os.PathLike[str], sites: Mapping[str, str] | None, example: Any) -> tuple[Plan, Any]:
    """Attach the attention of an adapter file, with its weights; return the plan and the model.

    Does not change the random state. Warns with HostMovedWarning if the host has other weights than the saved one.
    Raises DataError for a damaged file or another kind of file, and UsageError for a host or a map of sites that does
    not fit. The host is then unchanged.
    """
    adapter = read_adapter(Path(path))
    adapter.check_normalisation(normalisation_of(host.model))
    placed = _place(adapter, sites)
    replaced = {name: entry.replaces for name, entry in placed.items() if entry.replaces}
    if replaced:
        host.check_replaces()
    used = {name: (sites or {}).get(entry.context, entry.context) for name, entry in placed.items() if entry.context}
    if used:
        host.check_contexts()
    restore = host.random_state()
    try:
        selector = host.read(example)
        calls = _find(host, placed, replaced, used, selector)
        found, attentions = build(
            host, selector, calls, lambda call: (placed[call.name].mechanism, placed[call.name].start), replaced
        )
        _fill(attentions, adapter, placed)
        plan = _plan(adapter, host, found)
        if other := changed(adapter.host, host.checksums()):
            warnings.warn(
                f"the host is not the one that {adapter.path} was trained in: {shortened(other)} differ. The model "
                "computes something else than the saved one, unless you load the host's weights afterwards",
                HostMovedWarning,
                stacklevel=4,
            )
        model = host.insert(attentions, replaced, used)
    finally:
        restore()
    if adapter.normalisation is not None:
        set_normalisation(model, adapter.normalisation)
    return plan, model


def _place(adapter: Adapter, sites: Mapping[str, str] | None) -> dict[str, Entry]:
    """Return the adapter's entries by the names of the model's sites; raise UsageError unless `sites` is one to one."""
    names = [entry.name for entry in adapter.entries]
    sites = dict(zip(names, names, strict=True)) if sites is None else sites
    check_sites(sites, names, None, "adapter", "model")
    return {sites[entry.name]: entry for entry in adapter.entries}


def _find(
    host: Host, placed: Mapping[str, Entry], replaced: Mapping[str, str], used: Mapping[str, str], selector: Selector
) -> list[Call]:
    """Return the first call of each site, in running order, with its context in `used`.

    Raises UsageError where the model does not fit.
    """
    if absent := [name for name in used.values() if not selector.can_be_site(name)]:
        raise _misfit(f"a model with the contexts {_listed(absent)}", "a model without")
    first = {name: calls[0] for name in placed if (calls := selector.calls_of(name))}
    if missing := placed.keys() - first.keys():
        raise _misfit(f"a model that runs {_listed(missing)}", "a model that does not")
    check_free(host, selector, [*first.values()], replaced)
    replacing.check(selector, replaced)
    if unlike := [name for name in placed if name not in replaced and not selector.can_be_site(name)]:
        raise _misfit(f"sites {_listed(placed)}", f"a model where {_listed(unlike)} cannot be sites")
    calls = [
        contexts.paired(selector, [call], selector.sites([used[call.name]]))[0] if call.name in used else call
        for call in selector.sites(placed)
    ]
    for call in calls:
        mechanism, wanted = placed[call.name].mechanism, placed[call.name].channels
        contexts.fitted(mechanism, call)
        channels = channels_of(inputs_of(mechanism, call)[0])
        if channels != wanted:
            raise _misfit(f"{wanted} channels at {call.name!r}", f"a model with {channels} there")
    return calls


def _fill(attentions: Mapping[str, Any], adapter: Adapter, placed: Mapping[str, Entry]) -> None:
    """Set the weights of new attention from the adapter. Raises DataError for weights that do not fit."""
    arrays = dict(adapter.arrays)
    for site, attention in attentions.items():
        name = placed[site].name
        wanted = states.shapes(attention)
        found = {key: arrays.pop(f"{name}.{key}") for key in wanted if f"{name}.{key}" in arrays}
        wrong = [
            key
            for key, shape in wanted.items()
            if (found[key].shape != shape if key in found else not key.endswith(COUNT))
        ]
        if wrong:
            raise damaged(adapter.path, f"weights of {name!r} that do not fit: {_listed(wrong)}")
        states.write(attention, found)
    if spare := [name for name in arrays if not name.endswith(COUNT)]:
        raise damaged(adapter.path, f"weights that belong to no site: {_listed(spare)}")


def _plan(adapter: Adapter, host: Host, sites: list[Any]) -> Plan:
    kinds = list(dict.fromkeys(entry.mechanism for entry in adapter.entries))
    label = " + ".join(dict.fromkeys(kind.name for kind in kinds))
    options = kinds[0].options() if len(kinds) == 1 else {}
    return Plan(label, options, adapter.entries[0].start, adapter.path.name, host.count(), sites)


def _misfit(expected: str, received: str) -> UsageError:
    do = "load the adapter into its own host; where the sites have other names, pass sites={adapter name: model name}"
    return UsageError(expected=expected, received=received, do=do)


def _listed(names: Any) -> str:
    names = sorted(names)
    return ", ".join(map(repr, names[:4])) + (", ..." if len(names) > 4 else "")
