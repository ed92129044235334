"""Contexts: the second map of a mechanism, made at another site earlier in the same run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from foveate.errors import UsageError, shortened
from foveate.spec import Mechanism
from foveate.surgery.core.host import channels_of, inputs_of
from foveate.surgery.core.selectors import Selector
from foveate.surgery.core.trace import Call


def paired(selector: Selector, calls: Sequence[Call], contexts: Sequence[Call]) -> list[Call]:
    """Return the calls of sites, each with its context: one for all, or one for each in running order.

    Raises UsageError for another number, and where a context is not made before its site at every call.
    """
    if len(contexts) not in (1, len(calls)):
        raise UsageError(
            expected=f"one context for all of the {len(calls)} sites, or one for each",
            received=f"{len(contexts)}: {shortened([call.name for call in contexts])}, for the sites "
            f"{shortened([call.name for call in calls])}",
            do="name contexts as the sites are named, such as where='rgb.layer[34]', context='thermal.layer[34]'",
        )
    pairs = zip(calls, contexts if len(contexts) > 1 else [*contexts] * len(calls), strict=True)
    return [_with_context(selector, call, context) for call, context in pairs]


def fitted(kind: Any, call: Call) -> Any:
    """Return the mechanism with the channels of its second map, if it takes one. Raises UsageError for others."""
    if call.context is None or not isinstance(kind, Mechanism):
        return kind
    _, source = inputs_of(kind, call)
    channels = channels_of(source)
    asked = kind.options().get("context_channels")
    if asked not in (None, channels):
        raise UsageError(
            expected=f"context_channels={channels}, the channels of {source.name!r}, or None",
            received=f"context_channels={asked}",
            do="leave context_channels out: it follows the model",
        )
    return replace(kind, context_channels=channels) if "context_channels" in kind.options() else kind


def check_mechanism(kind: Any) -> None:
    """Raise UsageError unless a mechanism takes a context."""
    if not isinstance(kind, Mechanism) or not type(kind).takes_context():
        received = kind.name if isinstance(kind, Mechanism) else "a factory"
        raise UsageError(
            expected="with context= a mechanism that takes a second map, such as 'cross'",
            received=received,
            do="leave context out, or attach 'cross' or a Mechanism of your own whose forward takes a context",
        )


def _with_context(selector: Selector, call: Call, context: Call) -> Call:
    before, after = selector.calls_of(context.name), selector.calls_of(call.name)
    if context.name == call.name:
        received, do = "the site itself", "leave context out: without it, a map attends to itself"
    elif any(all(given.time > taken.time for given in before) for taken in after):
        received = f"{context.name!r}, which runs after it"
        do = f"exchange the two: where={context.name!r}, context={call.name!r}; or choose a site that runs later"
    else:
        return replace(call, context=context)
    raise UsageError(expected=f"a context that runs before {call.name!r}", received=received, do=do)
