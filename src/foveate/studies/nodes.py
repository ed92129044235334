"""What each node of a cluster has, for `foveate doctor --nodes`: versions, processor, space, data and storage."""

import platform
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foveate.errors import UsageError
from foveate.experiment.environment import describe_environment
from foveate.files import cache_folder
from foveate.storage import open_storage, reached
from foveate.studies.ray_engine import connected, on_each_node
from foveate.studies.remote_trial import digest_of, versions


def examine_nodes(address: str | None, places: Sequence[Path], results: str | None = None) -> dict[str, Any]:
    """Return what each node of a cluster has, and what of it would stop a study that begins here, ready for JSON.

    `places` are the files and folders that the study reads, `results` the storage that it writes to, as
    `checked_place` returns it. Raises MissingExtra or UsageError as `connected` does, or for storage that this machine
    cannot use.
    """
    names = [str(place.resolve()) for place in places]
    here = look(names)
    with connected(address), _probed(results) as probe:
        found = [
            node if isinstance(node, dict) else {"node": "unknown", "failed": " ".join(str(node).split())[:300]}
            for node in on_each_node(look, names, probe)
        ]
    nodes = [{**node, "problems": _problems(here, node)} for node in found]
    makes = sorted({node["processor"] for node in nodes if "processor" in node})
    return {"schema": 1, "here": here, "nodes": nodes, "processors": makes}


def look(places: Sequence[str], probe: tuple[str, str] | None = None) -> dict[str, Any]:
    """Return what this machine has, with the digests of the places, None for an absent one.

    `probe` is a storage and the name of a file in it, to be read here. "storage" says what went wrong, or None.
    """
    machine = describe_environment()
    return {
        "node": platform.node(),
        "versions": versions(),
        **{name: machine[name] for name in ("processor", "cores", "memory", "gpu")},
        "free": min(_free(cache_folder()), _free(Path(tempfile.gettempdir()))),
        "places": {place: digest_of(Path(place)) if Path(place).exists() else None for place in places},
        "storage": try_storage(*probe) if probe else None,
    }


@contextmanager
def _probed(place: str | None) -> Iterator[tuple[str, str] | None]:
    """Write a small file to a storage for the nodes to read, and remove it after the block."""
    if place is None:
        yield None
        return
    name = f"foveate-doctor-{secrets.token_hex(8)}"
    with reached(place):
        open_storage(place).write(name, name.encode())
    try:
        yield place, name
    finally:
        with reached(place):
            open_storage(place).remove(name)


def try_storage(place: str, name: str) -> str | None:
    """Read the file that another machine wrote; write one, read it back and remove it. Return what went wrong."""
    own = f"{name}-{secrets.token_hex(4)}"
    try:
        with reached(place):
            storage = open_storage(place)
            if storage.read(name) != name.encode():
                return f"other storage at {place} than on the machine where the study begins"
            storage.write(own, own.encode())
            try:
                back = storage.read(own)
            finally:
                storage.remove(own)
            return None if back == own.encode() else f"{place} does not give back what was written"
    except UsageError as error:
        return f"{place}: {error.received}"


def _problems(here: Mapping[str, Any], node: Mapping[str, Any]) -> list[str]:
    """Return why a study that begins here could not use a node."""
    if "failed" in node:
        return [node["failed"]]
    wrong = [
        f"{name} {node['versions'][name]} instead of {wanted}"
        for name, wanted in here["versions"].items()
        if node["versions"][name] != wanted
    ]
    wrong += [
        f"other content in {place}"
        for place, digest in node["places"].items()
        if digest not in (None, here["places"][place])
    ]
    return wrong + [node["storage"]] * bool(node["storage"])


def _free(folder: Path) -> int:
    """Return the free bytes of the disk on which a folder is, or will be made."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free
