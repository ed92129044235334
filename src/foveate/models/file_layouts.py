"""Layouts of published weight files whose layers have other names than ours; they are in `layouts/*.toml`."""

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
    """The layer names of a published file (`names`: theirs to ours), its model, and the normalisation of its images."""

    name: str
    source: str
    model: str
    normalisation: Normalisation
    names: Mapping[str, str]

    def ours(self, key: str) -> str:
        """Return our name for their weight `key`."""
        layer, _, leaf = key.rpartition(".")
        return f"{self.names[layer]}.{leaf}"


@cache
def file_layouts() -> tuple[FileLayout, ...]:
    """Return the known layouts, sorted by the names of their files."""
    tables = sorted((files("foveate.models") / "layouts").iterdir(), key=lambda table: table.name)
    return tuple(_read(tomllib.loads(table.read_text(encoding="utf-8"))) for table in tables)


def exact_layout(names: Collection[str]) -> FileLayout | None:
    """Return the layout that has exactly the layers of these weight names; None if there is none."""
    layers = _layers(names)
    return next((layout for layout in file_layouts() if layers == layout.names.keys()), None)


def recognise(path: Path, names: Collection[str]) -> FileLayout | None:
    """Return the layout of a file by the names of its weights; None if no layer has a name from any layout.

    Raises:
        UsageError: some layers are those of a layout, but others are missing or unknown.
    """
    if exact := exact_layout(names):
        return exact
    layers = _layers(names)
    for layout in file_layouts():
        if layers & layout.names.keys():
            odd = {"without": layout.names.keys() - layers, "with the unknown": layers - layout.names.keys()}
            differences = [f"{what} {shortened(sorted(found))}" for what, found in odd.items() if found]
            raise UsageError(
                expected=f"all layers of {layout.name}, and no others",
                received=f"{path} {' and '.join(differences)}",
                do="get the file again, or check which network it belongs to",
            )
    return None


def _layers(names: Collection[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def _read(table: dict[str, Any]) -> FileLayout:
    mean, deviation = (tuple(table["normalisation"][name]) for name in ("mean", "deviation"))
    return FileLayout(**{**table, "normalisation": Normalisation(mean, deviation, f"published with {table['model']}")})
