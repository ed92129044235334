"""Compare what mechanisms would add to a host at the same sites: cost and predicted time, without building them."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from foveate.cost import Cost
from foveate.errors import ReductionWarning, UsageError
from foveate.parts import Start
from foveate.spec import Mechanism, as_2d, check_identity
from foveate.speed import Predicted, Speed, predict
from foveate.surgery.core.attaching import check_free, choose, site_of
from foveate.surgery.core.host import Host, channels_of
from foveate.surgery.core.plans import Plan, Site, describe
from foveate.surgery.core.replacing import Replace
from foveate.surgery.core.selectors import Where
from foveate.surgery.core.trace import Call


@dataclass(frozen=True)
class Candidate:
    """A mechanism at the sites of a host: what it would add in how many seconds, or the reason why it does not fit.

    `kernel` says whether the time is that of a kernel of Foveate.
    """

    mechanism: Mechanism
    plan: Plan | None = None
    seconds: float = 0.0
    kernel: bool = False
    reason: str = ""

    def __str__(self) -> str:
        if self.plan is None:
            return f"{self.mechanism.name}: {self.reason}"
        counts = f"{self.plan.parameters:,} parameters, {self.plan.macs:,} MACs, {self.plan.bytes:,} bytes"
        return f"{self.mechanism.name}: {counts}, about {1000 * self.seconds:.3g} ms"


def compare(
    host: Host,
    mechanisms: Sequence[Mechanism],
    where: "Where | None",
    example: object,
    speed: Speed,
    has_kernel: Callable[[Mechanism], bool],
    instead_of: "Replace | None" = None,
) -> list[Candidate]:
    """Return a candidate for each mechanism: those that fit, by predicted time, and then the others.

    A mechanism without an identity start is planned with the published one. Raises UsageError for sites that no
    attention can have, and as `attach` for the modules to take the place of.
    """
    restore = host.random_state()
    try:
        selector = host.read(example)
        where, calls, replaced = choose(host, selector, where, instead_of)
        check_free(host, selector, calls, replaced)
        sites = {site_of(host, selector, call, replaced): selector.calls_of(call.name) for call in calls}
        with warnings.catch_warnings(action="ignore", category=ReductionWarning):
            found = [_candidate(host, each, where, sites, speed, has_kernel(each)) for each in mechanisms]
    finally:
        restore()
    return sorted(found, key=lambda each: (each.plan is None, each.seconds, each.plan.bytes if each.plan else 0))


def _candidate(
    host: Host,
    mechanism: Mechanism,
    where: "Where | None",
    sites: Mapping[Site, Sequence[Call]],
    speed: Speed,
    kernel: bool,
) -> Candidate:
    start, seconds, found = _start(mechanism, channels_of(next(iter(sites.values()))[0])), 0.0, list[Site]()
    for site, calls in sites.items():
        try:
            predicted = [_predict(host, mechanism, call, start, speed, kernel) for call in calls]
        except UsageError as error:
            reason = f"needs {error.expected}; {site.name} has {'×'.join(map(str, site.shape[1:]))}"
            return Candidate(mechanism, reason=reason)
        seconds += sum(each.seconds for each in predicted)
        cost = sum((each.cost for each in predicted), Cost())
        found.append(replace(site, cost=replace(cost, parameters=predicted[0].cost.parameters)))
    label = None if where is None else describe(where)
    plan = Plan(mechanism.name, mechanism.options(), start, label, host.count(), found)
    return Candidate(mechanism, plan, seconds, kernel)


def _predict(host: Host, mechanism: Mechanism, call: Call, start: Start, speed: Speed, kernel: bool) -> Predicted:
    shape = call.shape or ()
    if len(shape) != 4:
        host.measure(host.make(call, mechanism, start), call)  # refuses mechanisms that need a height and a width
    predicted = predict(mechanism, speed, shape, start=start, kernel=kernel)
    if predicted.shape != as_2d(shape):
        received = f"an output of {predicted.shape}"
        raise UsageError(expected="a site whose shape may change", received=received, do="use it as a module")
    return predicted


def _start(mechanism: Mechanism, channels: int) -> Start:
    try:
        check_identity(mechanism, mechanism.parts(channels))
    except UsageError:
        return "paper"
    return "identity"
