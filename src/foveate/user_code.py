"""Code in a user's own file or package, by name: `path/to/file.py:name` or `package.module:name`."""

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, reduce
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

from foveate.errors import UsageError, nearest

_DEBUG = "correct it; --debug shows where"
_EXAMPLES = {
    "model": "write for example --model nets/mine.py:make; timm/<name> and torchvision/<name> also work",
    "mechanism": "write for example --attention nets/mine.py:Mine, where Mine is a foveate.spec.Mechanism",
}
_importing: list[Path] = []


def is_own(name: str | None) -> TypeGuard[str]:
    """Return whether a name is FILE.py:NAME, or MODULE:NAME of an installed package."""
    return ":" in (name or "")


def short_name(name: str) -> str:
    """Return a name without the folder of its file, for titles and folders."""
    home, colon, last = name.rpartition(":")
    return f"{Path(home).name}:{last}" if colon else name


def located(name: str) -> str:
    """Return a name with the absolute path of its file, so that it is found from any folder."""
    home, _, last = name.rpartition(":")
    return f"{Path(home).resolve()}:{last}" if home.endswith(".py") else name


def code_file(name: str, what: str = "model") -> Path:
    """Return the file that holds a model's function, or a mechanism's class. Raises UsageError if there is none."""
    home = name.rpartition(":")[0]
    if home.endswith(".py"):
        if not Path(home).is_file():
            raise UsageError(
                expected=f"the file of a {what} at {home}",
                received="no such file",
                do="check the path before the colon",
            )
        return Path(home).resolve()
    try:
        spec = importlib.util.find_spec(home)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError(
            expected=f"a {what} as path/to/file.py:name",
            received=f"{name!r}, where {home!r} is neither a .py file nor an installed module",
            do=_EXAMPLES[what],
        )
    return Path(spec.origin)


def code_digest(name: str | None, what: str = "model") -> str | None:
    """Return the sha256 of the file that holds the code of a name, not of its imports; None for a built-in name.

    Raises UsageError if there is no such file.
    """
    return hashlib.sha256(code_file(name, what).read_bytes()).hexdigest() if name and is_own(name) else None


def name_of(function: Callable[..., Any]) -> str:
    """Return the name by which other processes find a function or class; raise UsageError if they cannot import it."""
    module, qualified = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    source = getattr(sys.modules.get(module or ""), "__file__", None)
    if not qualified or "<" in qualified or source is None or not Path(source).is_file():
        raise UsageError(
            expected="a function at the top level of a .py file, which the processes of a study can import",
            received=f"{qualified or repr(function)}, which has no such place",
            do="write def make(classes): ... at the top level of a file, not as a lambda, in a function or a notebook",
        )
    if module and "." in module:  # in a package, where it may import its neighbours by relative names
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin == source:
            return f"{module}:{qualified}"
    return f"{Path(source).resolve()}:{qualified}"


def require_not_importing(what: str) -> None:
    """Refuse a call at the top level of a model's file that would import the file again. Raises UsageError."""
    if _importing:
        raise UsageError(
            expected=f"{_importing[-1]} to only define the model when it is imported",
            received=f"a call of {what} at its top level",
            do='put that call under: if __name__ == "__main__":',
        )


def find(name: str, what: str = "model") -> Callable[..., Any]:
    """Import the code of a name and return its function or class. Raises UsageError, also where the import fails."""
    home, _, qualified = name.rpartition(":")
    path = code_file(name, what)
    module = _load(path, path.read_bytes()) if home.endswith(".py") else _import(home)
    try:
        function = reduce(getattr, qualified.split("."), module)
    except AttributeError:
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        do = nearest(qualified, names) if names else "define it there"
        raise UsageError(
            expected=f"a {what} in {path}", received=f"{qualified!r}, which the file does not define", do=do
        ) from None
    if not callable(function):
        raise UsageError(
            expected=f"a {what} in {path}",
            received=f"{qualified!r}, a {type(function).__name__}",
            do="name a function or a class",
        )
    return function  # pyright: ignore[reportReturnType]


@lru_cache
def _load(path: Path, content: bytes) -> ModuleType:
    """Run exactly the content whose digest is recorded; do not read or write a compiled copy."""
    module = ModuleType(f"foveate_own_{hashlib.sha256(str(path).encode() + content).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    _importing.append(path)
    try:
        with folder_first(path.parent):
            exec(compile(content, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        if isinstance(error, UsageError):
            raise
        raise failed(f"a file that can be imported: {path}", error) from error
    finally:
        _importing.pop()
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise failed(f"a module that can be imported: {name}", error) from error


@contextmanager
def folder_first(folder: Path) -> Iterator[None]:
    """Put a folder first on the path, so that a file can import its neighbours, as a script can."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def failed(expected: str, error: BaseException) -> UsageError:
    """Return the error for a user's code that failed."""
    return UsageError(
        expected=expected, received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", do=_DEBUG
    )
