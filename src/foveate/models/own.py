"""A user's own network as a host: `path/to/file.py:function` names a function that returns the network."""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, reduce
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from foveate.errors import UsageError, nearest
from foveate.torch_utils.modes import in_eval

_SIDE = 224  # pixels of the images that a network is tested on if imgsz is not given
_DEBUG = "correct it; --debug shows where"
_EXAMPLE = "write for example def make(classes, channels=3): ..."
_importing: list[Path] = []


def is_own(name: str | None) -> TypeGuard[str]:
    """Return whether a model's name is FILE.py:FUNCTION, or MODULE:FUNCTION of an installed package."""
    return ":" in (name or "")


def short_name(name: str) -> str:
    """Return the name of a model without the folder of its file, for titles and folders."""
    home, colon, function = name.rpartition(":")
    return f"{Path(home).name}:{function}" if colon else name


def located(name: str) -> str:
    """Return the name of a model with the absolute path of its file, so that it is found from any folder."""
    home, _, function = name.rpartition(":")
    return f"{Path(home).resolve()}:{function}" if home.endswith(".py") else name


def code_file(name: str) -> Path:
    """Return the file that a function is in. Raises UsageError if there is none."""
    home = name.rpartition(":")[0]
    if home.endswith(".py"):
        if not Path(home).is_file():
            raise UsageError(
                expected=f"the file of a model at {home}", received="no such file", do="check the path before the colon"
            )
        return Path(home).resolve()
    try:
        spec = importlib.util.find_spec(home)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise UsageError(
            expected="a model as path/to/file.py:function",
            received=f"{name!r}, where {home!r} is neither a .py file nor an installed module",
            do="write for example --model nets/mine.py:make; timm/<name> and torchvision/<name> also work",
        )
    return Path(spec.origin)


def code_digest(name: str | None) -> str | None:
    """Return the sha256 of the file that a model's function is in, not of its imports; None for any other model.

    Raises UsageError if there is no such file.
    """
    return hashlib.sha256(code_file(name).read_bytes()).hexdigest() if name and is_own(name) else None


def build_own(name: str, classes: int, channels: int, imgsz: int | None) -> nn.Module:
    """Run the function's file, call the function and return its network, in training mode.

    The network maps images (N, channels, imgsz, imgsz) to logits (N, classes). The function is called with `classes`,
    and with `channels` and `imgsz` (pixels) if it has parameters of these names.

    Raises:
        UsageError: there is no such file or function, it fails, or it does not return such a network.
    """
    function, short = _function(name), short_name(name)
    known = {"classes": classes, "channels": channels, **({"imgsz": imgsz} if imgsz else {})}
    arguments = _arguments(function, short, known)
    try:
        with _folder_first(code_file(name).parent):
            model = function(**arguments)
    except (Exception, SystemExit) as error:
        raise _failed(f"a network from {short}", error) from error
    if not isinstance(model, nn.Module):
        raise UsageError(
            expected=f"a torch.nn.Module from {short}",
            received=f"a {type(model).__name__}",
            do="return the network itself",
        )
    model = model.to("cpu")
    _check_output(model, short, classes, channels, imgsz or _SIDE)
    return model.train()


def name_of(function: Callable[..., nn.Module]) -> str:
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


def _function(name: str) -> Callable[..., Any]:
    home, _, qualified = name.rpartition(":")
    path = code_file(name)
    module = _load(path, path.read_bytes()) if home.endswith(".py") else _import(home)
    try:
        function = reduce(getattr, qualified.split("."), module)
    except AttributeError:
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        do = nearest(qualified, own) if own else "define it there"
        raise UsageError(
            expected=f"a function in {path}", received=f"{qualified!r}, which the file does not define", do=do
        ) from None
    if not callable(function):
        raise UsageError(
            expected=f"a function in {path}",
            received=f"{qualified!r}, a {type(function).__name__}",
            do="name a function",
        )
    return function  # pyright: ignore[reportReturnType]


@lru_cache
def _load(path: Path, content: bytes) -> ModuleType:
    """Run exactly the content whose digest is recorded; do not read or write a compiled copy."""
    module = ModuleType(f"foveate_model_{hashlib.sha256(str(path).encode() + content).hexdigest()[:16]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    _importing.append(path)
    try:
        with _folder_first(path.parent):
            exec(compile(content, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        if isinstance(error, UsageError):
            raise
        raise _failed(f"a file that can be imported: {path}", error) from error
    finally:
        _importing.pop()
    return module


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _failed(f"a module that can be imported: {name}", error) from error


@contextmanager
def _folder_first(folder: Path) -> Iterator[None]:
    """Put a folder first on the path, so that a file can import its neighbours, as a script can."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _arguments(function: Callable[..., Any], short: str, known: dict[str, int]) -> dict[str, int]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):  # the function is in C
        raise _unfit(f"{short}, whose parameters cannot be read", _EXAMPLE) from None
    by_name = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    all_taken = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = {key: value for key, value in known.items() if all_taken or key in by_name}
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [name for name in needed if name not in given]
    if missing or "classes" not in given:
        raise _unfit(
            f"{short}({', '.join(map(str, parameters))})", "give --imgsz" if missing == ["imgsz"] else _EXAMPLE
        )
    return given


def _unfit(received: str, do: str) -> UsageError:
    expected = (
        "a function with a parameter classes; it may have channels and imgsz as well, and others that have defaults"
    )
    return UsageError(expected=expected, received=received, do=do)


def _check_output(model: nn.Module, short: str, classes: int, channels: int, side: int) -> None:
    """Run the network on two images. Raises UsageError if it fails or gives other shapes."""
    shown = f"2 images of {channels} x {side} x {side}"
    try:
        with in_eval(model), torch.no_grad():
            output = model(torch.zeros(2, channels, side, side))
    except Exception as error:
        raise _failed(f"a network from {short} that runs on {shown}", error) from error
    received = str(tuple(output.shape)) if isinstance(output, Tensor) else f"a {type(output).__name__}"
    if received != str((2, classes)):
        raise UsageError(
            expected=f"logits of shape (2, {classes}) from the network of {short}, for {shown} and {classes} classes",
            received=received,
            do="return one output for each class; the parameter classes is their number",
        )


def _failed(expected: str, error: BaseException) -> UsageError:
    return UsageError(
        expected=expected, received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", do=_DEBUG
    )
