"""Plan and attach, for every framework: check first, change the model last."""

import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from foveate import mechanisms
from foveate.cost import Cost
from foveate.errors import BatchOfOneWarning, UsageError
from foveate.parts import Start
from foveate.site_names import MARK, parted
from foveate.spec import Mechanism
from foveate.surgery.core import contexts, replacing
from foveate.surgery.core.host import Factory, Host
from foveate.surgery.core.plans import Plan, Site, describe
from foveate.surgery.core.replacing import Replace
from foveate.surgery.core.selectors import Selector, Where
from foveate.surgery.core.trace import Call


@dataclass(frozen=True)
class Prepared:
    """A plan, and the attention built for it, by site."""

    plan: Plan
    attentions: dict[str, Any]
    contexts: dict[str, str]


@dataclass(frozen=True)
class AttachRequest:
    """What to attach, where, in place of which modules and with which context, as the caller gives it."""

    mechanism: Any
    where: "Where | None"
    example: Any
    start: Start
    options: dict[str, Any]
    replace: "Replace | None" = None
    context: "Where | None" = None


def plan(host: Host, request: AttachRequest) -> Plan:
    """Return the plan of an attachment without changing the model. Raises UsageError."""
    restore = host.random_state()
    try:
        made = prepare(host, request).plan
        if made.note:
            warnings.warn(made.note, BatchOfOneWarning, stacklevel=4)
        return made
    finally:
        restore()


def attach(host: Host, request: AttachRequest) -> tuple[Plan, Any]:
    """Attach attention; return the plan and the model.

    Raises UsageError; the host and the random state are then unchanged.
    """
    restore = host.random_state()
    try:
        prepared = prepare(host, request)
        replaced = prepared.attentions if request.replace else ()
        return prepared.plan, host.insert(prepared.attentions, replaced, prepared.contexts)
    except BaseException:
        restore()
        raise


def prepare(host: Host, request: AttachRequest) -> Prepared:
    """Choose the sites and build their attention without changing the model. Raises UsageError."""
    label, settings, kind = _resolve(host, request.mechanism, request.options)
    if request.replace is not None:
        host.check_replaces()
    selector = host.read(request.example)
    where, calls, replaced = choose(host, selector, request.where, request.replace)
    if request.context is not None:
        host.check_contexts()
        contexts.check_mechanism(kind)
        calls = contexts.paired(selector, calls, selector.choose(request.context))
    check_free(host, selector, calls, replaced)
    sites, attentions = build(
        host, selector, calls, lambda call: (contexts.fitted(kind, call), request.start), replaced
    )
    described = None if where is None else describe(where)
    made = Plan(label, settings, request.start, described, host.count(), sites)
    return Prepared(made, attentions, {site.name: site.context for site in sites if site.context})


def choose(
    host: Host, selector: Selector, where: "Where | None", instead_of: "Replace | None"
) -> "tuple[Where | None, list[Call], Collection[str]]":
    """Return `where` with its default, the first call of each site, and the modules that attention takes the place of.

    Raises UsageError.
    """
    if instead_of is None:
        where = "residual" if where is None else where
        return where, selector.choose(where), ()
    calls = replacing.choose(selector, instead_of, where, host.attached())
    return where, calls, {call.name for call in calls}


def build(
    host: Host,
    selector: Selector,
    calls: Sequence[Call],
    kind_at: Callable[[Call], tuple[Mechanism | Factory, Start]],
    replaced: Collection[str] = (),
) -> tuple[list[Site], dict[str, Any]]:
    """Build the attention of each free site, given its first call, and measure its cost; the model does not change.

    It takes the place of the modules that are `replaced`. Raises UsageError.
    """
    sites: list[Site] = []
    attentions: dict[str, Any] = {}
    for call in calls:
        attention = host.make(call, *kind_at(call))
        if any(attention is other for other in attentions.values()):
            do = "let the factory build a new module at each call"
            raise UsageError(expected="a new module for each site", received="the same module twice", do=do)
        attentions[call.name] = attention
        again = [replace(other, context=call.context) for other in selector.calls_of(call.name)]
        cost, alone = _cost(host, attention, again), host.needs_batch(attention, call)
        context = call.context.name if call.context else None
        sites.append(replace(site_of(host, selector, call, replaced), cost=cost, needs_batch=alone, context=context))
    return sites, attentions


def site_of(host: Host, selector: Selector, call: Call, replaced: Collection[str]) -> Site:
    """Return a site without attention, with what attention is to take the place of."""
    site = Site(call.name, call.shape or (), Cost())
    if call.name not in replaced:
        return site
    before = selector.parts[call.name]
    removed = _cost(host, before, selector.calls_of(call.name))
    return replace(site, replaces=type(before).__name__, removed=removed)


def _cost(host: Host, part: Any, calls: Sequence[Call]) -> Cost:
    """Return the cost of all calls."""
    costs = [host.measure(part, call) for call in calls]
    return replace(sum(costs, Cost()), parameters=costs[0].parameters)


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


def check_free(host: Host, selector: Selector, calls: Sequence[Call], replaced: Collection[str]) -> None:
    """Raise UsageError where a site already has attention, is part of it, or is to be replaced around it."""
    taken = host.attached()
    for call in calls:
        for site, attention in taken.items():
            inside = call.name in replaced and site.startswith((call.name + selector.separator, call.name + MARK))
            if site == call.name or inside or attention is selector.part(call.name):
                raise UsageError(
                    expected="a site without attention",
                    received=f"{site!r}, which has a {type(attention).__name__} attached",
                    do="detach(model) first, or choose other sites",
                )
    for site, context in host.contexts().items():
        if parted(context)[0] in replaced:
            raise UsageError(
                expected="modules to replace that are no context",
                received=f"{parted(context)[0]!r}, the context of {site!r}",
                do=f"detach(model, {site!r}) first, or leave {parted(context)[0]!r} out by where=",
            )
