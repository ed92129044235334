"""Sites at what modules are called with: "decoder.blocks.*:input", "decoder.blocks.0:skip", "decoder:features.1"."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from foveate.errors import UsageError, shortened
from foveate.site_names import joined, parted, ranged, with_range
from foveate.surgery.core.trace import Call, Trace

FIRST = "input"  # stands for the first map, where no argument has this name


def arguments(trace: Trace, site: str) -> list[Call]:
    """Return the calls in which the argument of a site was given; of a range of channels, with these alone."""
    whole, channels = ranged(site)
    calls = [call for call in trace.arguments if call.name == whole and call.kind is not type(None)]
    if channels is None or any(call.name == site for call in trace.arguments):
        return [call for call in trace.arguments if call.name == site and call.kind is not type(None)]
    first, end = channels
    return [
        replace(call, name=site, shape=(call.shape[0], end - first, *call.shape[2:]))
        for call in calls
        if call.shape is not None and len(call.shape) == trace.rank and first < end <= call.shape[1]
    ]


@dataclass(frozen=True)
class Inputs:
    """The arguments in a trace; `noun` and `separator` are those of the selector."""

    trace: Trace
    noun: str
    separator: str

    def select(self, modules: Sequence[str], argument: str) -> list[str]:
        """Return the sites at an argument of those of the modules that are called with a map there.

        Raises UsageError, with the reason at the first module, where there are none.
        """
        found = [self._find(module, argument) for module in modules]
        if chosen := [call.name for call in found if call is not None and self._is_map(call)]:
            return list(dict.fromkeys(chosen))
        raise self._refusal(modules[0], argument, found[0])

    def stand_in(self, site: str, idle: Collection[str]) -> str:
        """Return the site inside a container that is called with the same map, outside of inner containers.

        Raises UsageError where there is none.
        """
        whole, channels = ranged(site)
        values = {call.value for call in self.trace.arguments if call.name == whole} - {None}
        container, _ = parted(site)
        for call in self.trace.arguments:
            module = parted(call.name)[0]
            if call.value in values and module not in idle and self._is_in(module, container):
                return with_range(call.name, channels)
        raise UsageError(
            expected=f"a {self.noun} inside {container!r} that is called with its input",
            received="one that runs attention as one of its own children, and none inside it that takes that map",
            do=f"choose {self._listed(self._maps_inside(container))}",
        )

    def _find(self, module: str, argument: str) -> Call | None:
        """Return the first call of an argument with a map, else its first call; None for an unknown argument."""
        calls = self._calls(module)
        whole, channels = ranged(joined(module, argument))
        named = [call for call in calls if parted(call.name)[1] == argument]
        if not named and channels and (found := self._find(module, parted(whole)[1])) is not None:
            return next(iter(arguments(self.trace, with_range(found.name, channels))), None)
        if not named and argument == FIRST:
            own = [call for call in calls if "." not in parted(call.name)[1]]
            named = [call for call in own if self._is_map(call)] or own
        return next(filter(self._is_map, named), next(iter(named), None))

    def _refusal(self, module: str, argument: str, found: Call | None) -> UsageError:
        calls = self._calls(module)
        maps = list(dict.fromkeys(call.name for call in calls if self._is_map(call)))
        do = f"choose {self._listed(maps or self._maps_inside(module))}"
        if found is None:
            names = [repr(name) for name in dict.fromkeys(parted(call.name)[1] for call in calls) if "." not in name]
            return UsageError(
                expected=f"a {self.noun} with the argument {argument!r}",
                received=f"{module!r} with {', '.join(names) or 'none'}",
                do=do,
            )
        what = parted(found.name)[1]
        if found.kind is type(None):
            received, do = f"{what!r}, which was absent (None) in the probe run", f"{do}; or an example= that gives it"
        elif found.shape is None:
            received = f"{what!r}, which is no map but of type {found.kind.__name__}"
        else:
            received = f"{what!r} of shape {found.shape}"
        return UsageError(
            expected=f"an argument of {module!r} that is one feature map {self.trace.layout}", received=received, do=do
        )

    def _calls(self, module: str) -> list[Call]:
        return [call for call in self.trace.arguments if parted(call.name)[0] == module]

    def _maps_inside(self, module: str) -> list[str]:
        calls = (call for call in self.trace.arguments if self._is_in(parted(call.name)[0], module))
        return list(dict.fromkeys(call.name for call in calls if self._is_map(call)))

    def _listed(self, names: list[str]) -> str:
        return f"one of {shortened(names)}" if names else f"another {self.noun}, which is called with a map"

    def _is_in(self, module: str, outer: str) -> bool:
        return module.startswith(outer + self.separator)

    def _is_map(self, call: Call) -> bool:
        return call.shape is not None and len(call.shape) == self.trace.rank
