"""The catalogue: every file in this folder that defines a `Mechanism` with a name is registered automatically."""

import dataclasses
import importlib
import pkgutil
from functools import cache

from foveate.errors import UsageError, nearest
from foveate.spec import Mechanism


@cache
def catalogue() -> dict[str, type[Mechanism]]:
    """Return every mechanism class by its short name, in alphabetical order."""
    modules = [importlib.import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    found = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Mechanism) and value.__module__ == module.__name__
    ]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: kind.name)}


def names() -> list[str]:
    """Return the short names: "cbam", "se", ..."""
    return list(catalogue())


def get(name: str) -> type[Mechanism]:
    """Return the mechanism class with this name, in any letter case. Raises UsageError with the nearest names."""
    found = catalogue().get(name.strip().lower()) if isinstance(name, str) else None
    if found is None:
        words = str(name).lower().split()
        several = len(words) > 1 and {*words} <= {*names()}
        do = f"separate them with commas: {','.join(words)}" if several else nearest(str(name).lower(), names())
        raise UsageError(expected="the name of a mechanism", received=repr(name), do=do)
    return found


def create(name: str, **options: object) -> Mechanism:
    """Return the mechanism with its options. Raises UsageError for a name, an option or a value that does not exist."""
    kind = get(name)
    known = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in known:
            do = nearest(option, known) if known else "pass no options"
            raise UsageError(expected=f"an option of {name}", received=f"{option!r}", do=do)
    return kind(**options)


def resolve(mechanism: object, **options: object) -> Mechanism | None:
    """Return the mechanism for a name, a `Mechanism` or its class, with the options; None for anything else.

    Raises UsageError as `create`.
    """
    if isinstance(mechanism, type) and issubclass(mechanism, Mechanism):
        mechanism = mechanism.name
    if isinstance(mechanism, Mechanism):
        mechanism, options = mechanism.name, {**mechanism.options(), **options}
    return create(mechanism, **options) if isinstance(mechanism, str) else None
