"""Where the attention of an adapter goes in a model, and its weights into it: what loading shares between the frameworks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from foveate.bind import states
from foveate.errors import UsageError
from foveate.surgery.core.adapter_file import Adapter, Entry, damaged
from foveate.surgery.core.trace import Call, Trace
from foveate.surgery.core.transfer import check_sites

Predicate: TypeAlias = Callable[[str, Any, tuple[int, ...]], bool]
COUNT = "num_batches_tracked"  # of a batch norm in torch; Keras has none


def place(adapter: Adapter, sites: Mapping[str, str] | None) -> dict[str, Entry]:
    """Return the adapter's entries by the names of the model's sites. Raises UsageError for a map that is not one to one."""
    names = [entry.name for entry in adapter.entries]
    sites = dict(zip(names, names, strict=True)) if sites is None else sites
    check_sites(sites, names, None, "adapter", "model")
    return {sites[entry.name]: entry for entry in adapter.entries}


def find(placed: Mapping[str, Entry], trace: Trace, choose: Callable[[Predicate], list[Call]]) -> list[Call]:
    """Return the first call of each site, in the order in which they run; `choose` is the framework's. Raises UsageError for a misfit."""
    if missing := placed.keys() - {call.name for call in trace.calls}:
        raise _misfit(f"a model that runs {_listed(missing)}", "one that does not")
    calls = choose(lambda name, module, shape: name in placed)
    if unlike := placed.keys() ^ {call.name for call in calls}:
        raise _misfit(f"sites {_listed(placed)}", f"a model where {_listed(unlike)} cannot be sites")
    for call in calls:
        channels, wanted = (call.shape or (0, 0))[1], placed[call.name].channels
        if channels != wanted:
            raise _misfit(f"{wanted} channels at {call.name!r}", f"a model with {channels} there")
    return calls


def restore(adapter: Adapter, placed: Mapping[str, Entry], calls: Sequence[Call], make: Callable[[Entry, Call], Any]) -> dict[str, Any]:
    """Return the attention of every site, made by `make` and given its weights. Raises DataError for weights that do not fit."""
    arrays = dict(adapter.arrays)
    made = {}
    for call in calls:
        entry = placed[call.name]
        made[call.name] = make(entry, call)
        wanted = states.shapes(made[call.name])
        found = {key: arrays.pop(name) for key in wanted if (name := f"{entry.name}.{key}") in arrays}
        wrong = [key for key, shape in wanted.items() if (found[key].shape != shape if key in found else not key.endswith(COUNT))]
        if wrong:
            raise damaged(adapter.path, f"weights of {entry.name!r} that do not fit: {_listed(wrong)}")
        states.write(made[call.name], found)
    if spare := [name for name in arrays if not name.endswith(COUNT)]:
        raise damaged(adapter.path, f"weights that belong to no site: {_listed(spare)}")
    return made


def _misfit(expected: str, received: str) -> UsageError:
    do = "load the adapter into the host that it was made for; where its sites have other names, sites={adapter name: model name}"
    return UsageError(expected=expected, received=received, do=do)


def _listed(names: Any) -> str:
    names = sorted(names)
    return ", ".join(map(repr, names[:4])) + (", ..." if len(names) > 4 else "")
