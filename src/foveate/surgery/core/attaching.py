"""Plan and attach, for every framework: check first, change the model last."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foveate import mechanisms
from foveate.cost import Cost
from foveate.errors import BatchOfOneWarning, UsageError
from foveate.spec import Mechanism, Start
from foveate.surgery.core.host import Factory, Host
from foveate.surgery.core.plans import Plan, Site, describe
from foveate.surgery.core.selectors import Selector, Where
from foveate.surgery.core.trace import Call


@dataclass(frozen=True)
class Prepared:
    """A plan, and the attention built for it, by site."""

    plan: Plan
    attentions: dict[str, Any]


def plan(host: Host, mechanism: Any, where: Where, example: Any, start: Start, options: dict[str, Any]) -> Plan:
    """Return the plan of an attachment without changing the model. Raises UsageError."""
    restore = host.random_state()
    try:
        made = prepare(host, mechanism, where, example, start, options).plan
        if made.note:
            warnings.warn(made.note, BatchOfOneWarning, stacklevel=4)
        return made
    finally:
        restore()


def attach(
    host: Host, mechanism: Any, where: Where, example: Any, start: Start, options: dict[str, Any]
) -> tuple[Plan, Any]:
    """Attach attention; return the plan and the model.

    Raises UsageError; the host and the random state are then unchanged.
    """
    restore = host.random_state()
    try:
        prepared = prepare(host, mechanism, where, example, start, options)
        return prepared.plan, host.insert(prepared.attentions)
    except BaseException:
        restore()
        raise


def prepare(host: Host, mechanism: Any, where: Where, example: Any, start: Start, options: dict[str, Any]) -> Prepared:
    """Choose the sites and build their attention without changing the model. Raises UsageError."""
    label, settings, kind = _resolve(host, mechanism, options)
    selector = host.read(example)
    sites, attentions = build(host, selector, selector.choose(where), lambda call: (kind, start))
    return Prepared(Plan(label, settings, start, describe(where), host.count(), sites), attentions)


def build(
    host: Host, selector: Selector, calls: Sequence[Call], kind_at: Callable[[Call], tuple[Mechanism | Factory, Start]]
) -> tuple[list[Site], dict[str, Any]]:
    """Build the attention of each site, given its first call, and measure its cost; the model does not change.

    Raises UsageError.
    """
    _check_free(host, selector, calls)
    sites: list[Site] = []
    attentions: dict[str, Any] = {}
    for call in calls:
        attention = host.make(call, *kind_at(call))
        if any(attention is other for other in attentions.values()):
            do = "let the factory build a new module at each call"
            raise UsageError(expected="a new module for each site", received="the same module twice", do=do)
        costs = [host.measure(attention, again) for again in selector.trace.calls if again.name == call.name]
        attentions[call.name] = attention
        cost = replace(sum(costs, Cost()), parameters=costs[0].parameters)
        sites.append(Site(call.name, call.shape or (), cost, host.needs_batch(attention, call)))
    return sites, attentions


def _resolve(host: Host, mechanism: Any, options: dict[str, Any]) -> tuple[str, dict[str, Any], Mechanism | Factory]:
    """Return the name and the options for the plan, and the mechanism or the factory."""
    if isinstance(mechanism, type) and issubclass(mechanism, host.bound):
        mechanism = mechanism.kind
    found = mechanisms.resolve(mechanism, **options)
    if found is not None:
        return found.name, found.options(), found
    host.check_factory(mechanism)
    if options:
        raise UsageError(
            expected="options of a mechanism", received=f"{options} with a factory", do="set them inside the factory"
        )
    return describe(mechanism), {}, mechanism


def _check_free(host: Host, selector: Selector, calls: Sequence[Call]) -> None:
    """Raise UsageError where a site already has attention, or is part of attention."""
    taken = host.attached()
    for call in calls:
        for site, attention in taken.items():
            if site == call.name or attention is selector.parts[call.name]:
                raise UsageError(
                    expected="a site without attention",
                    received=f"{site!r}, which has a {type(attention).__name__} attached",
                    do="detach(model) first, or choose other sites",
                )
