"""What each node of a cluster has, for `foveate doctor --nodes`: versions, processor, space and the data."""

import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foveate.experiment.environment import describe_environment
from foveate.files import cache_folder
from foveate.studies.ray_engine import connected, on_each_node
from foveate.studies.remote_trial import digest_of, versions


def examine_nodes(address: str | None, places: Sequence[Path]) -> dict[str, Any]:
    """Return what each node of a cluster has, and what of it would stop a study that begins here, ready for JSON.

    `places` are the files and folders that the study reads. Raises MissingExtra or UsageError as `connected` does.
    """
    names = [str(place.resolve()) for place in places]
    here = look(names)
    with connected(address):
        found = [
            node if isinstance(node, dict) else {"node": "unknown", "failed": " ".join(str(node).split())[:300]}
            for node in on_each_node(look, names)
        ]
    nodes = [{**node, "problems": _problems(here, node)} for node in found]
    makes = sorted({node["processor"] for node in nodes if "processor" in node})
    return {"schema": 1, "here": here, "nodes": nodes, "processors": makes}


def look(places: Sequence[str]) -> dict[str, Any]:
    """Return what this machine has, with the digests of the places, None for an absent one."""
    machine = describe_environment()
    return {
        "node": platform.node(),
        "versions": versions(),
        **{name: machine[name] for name in ("processor", "cores", "memory", "gpu")},
        "free": min(_free(cache_folder()), _free(Path(tempfile.gettempdir()))),
        "places": {place: digest_of(Path(place)) if Path(place).exists() else None for place in places},
    }


def _problems(here: Mapping[str, Any], node: Mapping[str, Any]) -> list[str]:
    """Return why a study that begins here could not use a node."""
    if "failed" in node:
        return [node["failed"]]
    wrong = [
        f"{name} {node['versions'][name]} instead of {wanted}"
        for name, wanted in here["versions"].items()
        if node["versions"][name] != wanted
    ]
    return wrong + [
        f"other content in {place}"
        for place, digest in node["places"].items()
        if digest not in (None, here["places"][place])
    ]


def _free(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder is, or will be made."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
