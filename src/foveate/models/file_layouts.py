"""Layouts of published weight files whose layers have other names than ours; they are in `layouts/*.toml`."""

import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from foveate.errors import UsageError, shortened
from foveate.normalisation import Normalisation


@dataclass(frozen=True)
class FileLayout:
    """The layer names of a published file (`names`: theirs to ours), its model, and the normalisation of its images.

    `attention` maps their blocks of attention to our sites; `built` says with which options a model has such blocks, by
    a layer of the block. A file may hold only the layers whose names start with `backbone`, without that prefix.
    """

    name: str
    source: str
    model: str
    names: Mapping[str, str]
    normalisation: Normalisation | None = None
    attention: Mapping[str, str] = field(default_factory=dict)
    built: Mapping[str, str] = field(default_factory=dict)
    backbone: str = ""
    whole: bool = True

    def ours(self, key: str) -> str:
        """Return our name for their weight `key`."""
        layer, _, leaf = key.rpartition(".")
        return f"{self.names[layer]}.{leaf}"

    def blocks(self, names: Collection[str]) -> dict[str, list[str]]:
        """Return the names of each block of attention in a file, by site."""
        found = {
            site: [name for name in names if name.startswith(f"{block}.")] for block, site in self.attention.items()
        }
        return {site: named for site, named in found.items() if named}

    def options(self, names: Collection[str]) -> str:
        """Return the options that build a model with the attention of a file, "" for none that is known."""
        layers = {layer.partition(".")[2] for layer in _layers(names)}
        return next((options for layer, options in self.built.items() if layer in layers), "")


@cache
def file_layouts() -> tuple[FileLayout, ...]:
    """Return the known layouts, sorted by the names of their files, each followed by that of its backbone alone."""
    tables = sorted((files("foveate.models") / "layouts").iterdir(), key=lambda table: table.name)
    whole = [_read(tomllib.loads(table.read_text(encoding="utf-8"))) for table in tables]
    return tuple(part for layout in whole for part in (layout, *_backbone(layout)))


def exact_layout(names: Collection[str]) -> FileLayout | None:
    """Return the layout that has exactly the layers of these weight names; None if there is none."""
    return next((layout for layout in file_layouts() if _hosts(layout, names) == layout.names.keys()), None)


def recognise(path: Path, names: Collection[str]) -> FileLayout | None:
    """Return the layout of a file by the names of its weights; None if no layer has a name from any layout.

    Raises:
        UsageError: some layers are those of a layout, but others are missing or unknown.
    """
    if exact := exact_layout(names):
        return exact
    for layout in file_layouts():
        layers = _hosts(layout, names)
        if layers & layout.names.keys():
            odd = {"without": layout.names.keys() - layers, "with the unknown": layers - layout.names.keys()}
            differences = [f"{what} {shortened(sorted(found))}" for what, found in odd.items() if found]
            raise UsageError(
                expected=f"all layers of {layout.name}, and no others",
                received=f"{path} {' and '.join(differences)}",
                do="get the file again, or check which network it belongs to",
            )
    return None


def _hosts(layout: FileLayout, names: Collection[str]) -> set[str]:
    """Return the layers of a file without its blocks of attention."""
    attention = {name for named in layout.blocks(names).values() for name in named}
    return _layers(name for name in names if name not in attention)


def _layers(names: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


def _backbone(layout: FileLayout) -> list[FileLayout]:
    start = layout.backbone
    names = {theirs.removeprefix(start): ours for theirs, ours in layout.names.items() if theirs.startswith(start)}
    part = replace(layout, name=f"the backbone of {layout.name}", names=names, attention={}, whole=False)
    return [part] if start else []


def _read(table: dict[str, Any]) -> FileLayout:
    stated = table.pop("normalisation", None)
    if stated is None:
        return FileLayout(**table)
    mean, deviation = tuple(stated["mean"]), tuple(stated["deviation"])
    return FileLayout(**table, normalisation=Normalisation(mean, deviation, f"published with {table['model']}"))
