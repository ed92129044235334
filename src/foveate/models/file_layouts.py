"""Files of weights whose layers have other names than ours: `layouts/*.toml` says which is which."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from foveate.errors import UsageError, shortened
from foveate.normalisation import Normalisation


@dataclass(frozen=True)
class FileLayout:
    """How one published file names its layers (`names`: theirs to ours), of which model they are, and how its images were normalised."""

    name: str
    source: str
    model: str
    normalisation: Normalisation
    names: Mapping[str, str]

    def ours(self, key: str) -> str:
        """Return our name of their weight `key`."""
        layer, _, leaf = key.rpartition(".")
        return f"{self.names[layer]}.{leaf}"


@cache
def file_layouts() -> tuple[FileLayout, ...]:
    """Return the layouts that are known, by the names of their files."""
    tables = sorted((files("foveate.models") / "layouts").iterdir(), key=lambda table: table.name)
    return tuple(_read(tomllib.loads(table.read_text(encoding="utf-8"))) for table in tables)


def exact_layout(names: Collection[str]) -> FileLayout | None:
    """Return the layout whose layers are exactly those of weights of these names; None for any other names."""
    layers = _layers(names)
    return next((layout for layout in file_layouts() if layers == layout.names.keys()), None)


def recognise(path: Path, names: Collection[str]) -> FileLayout | None:
    """Return the layout that the names of weights in a file are; None where no layer has a name of any layout.

    Raises:
        UsageError: some layers are those of a layout, but some are missing or strange.
    """
    if exact := exact_layout(names):
        return exact
    layers = _layers(names)
    for layout in file_layouts():
        if layers & layout.names.keys():
            odd = {"without": layout.names.keys() - layers, "with the unknown": layers - layout.names.keys()}
            told = [f"{what} {shortened(sorted(found))}" for what, found in odd.items() if found]
            raise UsageError(
                expected=f"all layers of {layout.name}, and no others",
                received=f"{path} {' and '.join(told)}",
                do="get the file again, or check which network it is of",
            )
    return None


def _layers(names: Collection[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def _read(table: dict[str, Any]) -> FileLayout:
    mean, deviation = (tuple(table["normalisation"][name]) for name in ("mean", "deviation"))
    return FileLayout(**{**table, "normalisation": Normalisation(mean, deviation, f"published with {table['model']}")})
