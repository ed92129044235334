"""The formats of exported files; each module in this folder is one."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
from torch.export import ExportedProgram

from foveate.errors import UsageError, naming_extras
from foveate.exporting.subject import Subject

FORMATS = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))
Array: TypeAlias = np.ndarray[Any, Any]
Runner: TypeAlias = Callable[[Sequence[Array]], list[Array]]
"""Runs a file on its inputs, in order, and returns its outputs."""


class Format(Protocol):
    """What differs between formats; other files ask a format for it and never for its name.

    - `SUFFIX`: of its files; `COMPANIONS`: the suffixes of further files that belong to one.
    - `DYNAMIC`: whether batch, height and width can be open. `NMS`: whether it has non-maximum suppression.
    - `PACKAGES`: whose versions matter to the file.
    - `quantise`: replaces a file by its INT8 form, calibrated on inputs, and returns the operators of attention, which
      stay in float, by the package `QUANTISER`; both None for a format without a quantiser.
    - `write_keras`: writes a Keras model and returns the versions that did it; None where its traced graph is written.
    """

    SUFFIX: str
    COMPANIONS: tuple[str, ...]
    DYNAMIC: bool
    NMS: bool
    PACKAGES: tuple[str, ...]
    QUANTISER: str | None
    quantise: Callable[[Path, Sequence[Array]], list[str]] | None
    write_keras: Callable[[Any, Subject, Path], dict[str, str]] | None

    def write(self, program: ExportedProgram, subject: Subject, path: Path, notes: Mapping[str, str]) -> None:
        """Write a traced model; the file carries the notes where the format has a place for them."""
        ...

    def open(self, path: Path, threads: int | None = None) -> Runner:
        """Return a function that runs a file on the CPU, in float32."""
        ...

    def operators(self, path: Path) -> dict[str, int]:
        """Return how often each operator occurs in a file."""
        ...


def format_of(path: Path) -> tuple[str, Format]:
    """Return the format of a file by its suffix. Raises UsageError for another suffix, MissingExtra."""
    found = {name: _load(name) for name in FORMATS}
    for name, one in found.items():
        if path.suffix == one.SUFFIX:
            return name, one
    known = ", ".join(f"{one.SUFFIX} ({name})" for name, one in found.items())
    raise UsageError(expected=f"a file named {known}", received=repr(path.name), do="rename it")


def named(name: str) -> Format:
    """Return a format by its name. Raises UsageError."""
    if name not in FORMATS:
        raise UsageError(expected=f"a format: {', '.join(FORMATS)}", received=repr(name), do="choose one of them")
    return _load(name)


def run_file(path: Path, threads: int | None = None) -> Runner:
    """Return a function that runs an exported file. Raises UsageError, MissingExtra."""
    with naming_extras():
        return format_of(path)[1].open(path, threads)


def import_packages(name: str) -> None:
    """Import the packages of a format. Raises ModuleNotFoundError."""
    for package in named(name).PACKAGES:
        importlib.import_module(package.replace("-", "_"))


def _load(name: str) -> Format:
    return cast(Format, importlib.import_module(f"{__name__}.{name}"))
