"""The catalogue: the mechanisms in the files of this folder, those of installed packages, and those of the user."""

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from foveate import user_code
from foveate.errors import UsageError, nearest
from foveate.spec import Mechanism, layout

ENTRY_POINTS = "foveate.mechanisms"  # the group in which a package names its mechanisms
Kind = TypeVar("Kind", bound=type[Mechanism])

_registered: dict[str, type[Mechanism]] = {}


@cache
def built_in() -> dict[str, type[Mechanism]]:
    """Return every mechanism class of this folder by its short name, in alphabetical order."""
    modules = [importlib.import_module(f"{__name__}.{file.name}") for file in pkgutil.iter_modules(__path__)]
    found = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Mechanism) and value.__module__ == module.__name__
    ]
    return {kind.name: kind for kind in sorted(found, key=lambda kind: kind.name)}


def catalogue() -> dict[str, type[Mechanism]]:
    """Return every mechanism class that has a name: built in, of installed packages, and registered."""
    _load_entry_points()
    return {**built_in(), **_registered}


def register(kind: Kind) -> Kind:
    """Give a mechanism of your own its `name` in the catalogue, and return the class: also a decorator.

    A class of the same place (module and name) replaces the earlier one, as when a notebook's cell runs again. Raises
    UsageError for anything but a subclass of `Mechanism`, and for a name that another mechanism has.
    """
    if not (isinstance(kind, type) and issubclass(kind, Mechanism) and kind is not Mechanism):
        raise UsageError(
            expected="a subclass of foveate.spec.Mechanism",
            received=repr(kind),
            do="write a frozen dataclass with parts and forward: see the page on adding a mechanism",
        )
    fields = dataclasses.fields(kind)
    if missing := [field.name for field in fields if field.init and _has_no_default(field)]:
        raise UsageError(
            expected="a default for every option of a mechanism with a name",
            received=f"{full_name(kind)}, with {' and '.join(missing)} without one",
            do="give it a default, or pass the mechanism itself: attention(Mine(...), channels)",
        )
    name = kind.name.strip().lower()
    other = built_in().get(name) or _registered.get(name)
    if other is not None and full_name(other) != full_name(kind):
        raise UsageError(
            expected="a name that no other mechanism has",
            received=f"{name!r} for {full_name(kind)}, the name of {full_name(other)}",
            do="give your class another name: ClassVar[str]",
        )
    _registered[name] = kind
    return kind


def names() -> list[str]:
    """Return the short names: "cbam", "se", ..."""
    return list(catalogue())


def get(name: str) -> type[Mechanism]:
    """Return the mechanism class of a name in any letter case, or of "package.module:Class" or "path/to/file.py:Class".

    Raises UsageError with the nearest names, or where a class cannot be imported or is no mechanism.
    """
    if isinstance(name, str) and user_code.is_own(name):
        return _imported(name)
    key = name.strip().lower() if isinstance(name, str) else ""
    found = built_in().get(key) or catalogue().get(key)  # packages are searched only for names that are not built in
    if found is None:
        words = str(name).lower().split()
        several = len(words) > 1 and {*words} <= {*names()}
        do = f"separate them with commas: {','.join(words)}" if several else nearest(str(name).lower(), names())
        raise UsageError(expected="the name of a mechanism", received=repr(name), do=do)
    return found


def create(name: str, **options: object) -> Mechanism:
    """Return the mechanism of a name with its options.

    Raises UsageError for a name, an option or a value that does not exist.
    """
    return make(get(name), **options)


def make(kind: type[Mechanism], **options: object) -> Mechanism:
    """Return a mechanism of this class. Raises UsageError for an option or a value that does not exist."""
    if kind is Mechanism:
        raise UsageError(
            expected="a mechanism", received="the base class Mechanism", do=f"use one of {', '.join(names())}"
        )
    _check_options(kind, options)
    return kind(**options)


def of_any_rank() -> list[str]:
    """Return the names of the built-in mechanisms that also take maps of 1-D and 3-D networks by default."""
    return [name for name, kind in built_in().items() if kind().any_rank(640)]


def planar(mechanism: Mechanism, channels: int, received: str) -> UsageError:
    """Return the error for a mechanism that needs a height and a width, and got another map."""
    return UsageError(
        expected=f"a feature map {layout(4, channels)} for {mechanism.name}, whose maths needs a height and a width",
        received=received,
        do=f"for maps {layout(3)} and {layout(5)} use one of {', '.join(of_any_rank())}",
    )


def resolve(mechanism: object, **options: object) -> Mechanism | None:
    """Return the mechanism for a name, a `Mechanism` or its class, with the options; None for anything else.

    Raises UsageError as `create`.
    """
    if isinstance(mechanism, str):
        return create(mechanism, **options)
    if isinstance(mechanism, type) and issubclass(mechanism, Mechanism):
        return make(mechanism, **options)
    if isinstance(mechanism, Mechanism):
        _check_options(type(mechanism), options)
        return dataclasses.replace(mechanism, **options)
    return None


def require(mechanism: object, **options: object) -> Mechanism:
    """Return the mechanism as `resolve`; raise UsageError for anything that is no mechanism."""
    found = resolve(mechanism, **options)
    if found is None:
        raise UsageError(
            expected="a mechanism: its name, a foveate.spec.Mechanism or its class",
            received=repr(mechanism),
            do=f"use one of {', '.join(names())}",
        )
    return found


def full_name(kind: type[Mechanism]) -> str:
    """Return where a mechanism's class is defined: "package.module:Class"."""
    return f"{kind.__module__}:{kind.__qualname__}"


def describe(mechanism: Mechanism) -> dict[str, Any]:
    """Return a mechanism as plain values for a file, which `restore` reads."""
    kind = type(mechanism)
    place = {} if built_in().get(kind.name) is kind else {"place": full_name(kind)}
    return {"mechanism": kind.name, **place, "options": mechanism.options()}


def restore(mechanism: str, options: Mapping[str, Any], place: str | None = None) -> Mechanism:
    """Return the mechanism that a file names; `place` is the full name of a class that is not built in.

    Nothing is imported for a file: the class must be imported or registered already. Raises UsageError where it is not.
    """
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    if place is None and not user_code.is_own(mechanism):
        return make(get(mechanism), **options)
    place = place or mechanism
    kind = _loaded(place) or _registered.get(mechanism)
    if kind is None:
        raise UsageError(
            expected=f"the mechanism {mechanism!r} as the class {place}, which is not built in",
            received="a process in which it is not imported",
            do=f"import {place.partition(':')[0]} first, or foveate.register(...) a class of that name",
        )
    return make(kind, **options)


def _loaded(place: str) -> type[Mechanism] | None:
    """Return the class of a full name, among those that are imported; the latest of several."""
    waiting: list[type[Mechanism]] = [Mechanism]
    found = None
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            found = kind if full_name(kind) == place else found
    return found


def _imported(name: str) -> type[Mechanism]:
    kind = user_code.find(name, "mechanism")
    if not (isinstance(kind, type) and issubclass(kind, Mechanism)):
        raise UsageError(
            expected=f"a subclass of foveate.spec.Mechanism at {user_code.short_name(name)}",
            received=repr(kind),
            do="name the class of the mechanism",
        )
    return kind


@cache
def _load_entry_points() -> None:
    for point in entry_points(group=ENTRY_POINTS):
        register(_of_package(point))


def _of_package(point: EntryPoint) -> type[Mechanism]:
    try:
        return point.load()
    except Exception as error:
        raise UsageError(
            expected=f"the mechanism {point.name!r} of an installed package, {point.value}",
            received=f"{type(error).__name__}: {error}",
            do="repair or remove that package",
        ) from error


def _has_no_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _check_options(kind: type[Mechanism], options: Mapping[str, object]) -> None:
    known = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in known:
            do = nearest(option, known) if known else "pass no options"
            raise UsageError(expected=f"an option of {kind.name}", received=f"{option!r}", do=do)
