"""The files of a repository, and its manifest: a sha256 of each of them, but not of the card, which people edit."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import foveate
from foveate import files
from foveate.errors import DataError, UsageError, imported
from foveate.experiment.run_folder import BEST

MANIFEST, CARD, ADAPTER, WEIGHTS = "manifest.json", "README.md", "adapter.safetensors", "model.safetensors"
KERAS_WEIGHTS = "keras.safetensors"
RUN = ("args.yaml", "data.json", "results.json")  # a repository of a run has the form of a run's folder
RUN_WEIGHTS = BEST.as_posix()
FILES = (CARD, ADAPTER, WEIGHTS, KERAS_WEIGHTS, *RUN, RUN_WEIGHTS, MANIFEST)
SCHEMA = 1


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files of a repository, the manifest last. Raises UsageError for a folder that holds something else.

    An interrupted call leaves a folder that can be written again; `find` refuses it if files lack or are of two saves.
    """
    ours = _is_ours(folder / MANIFEST)
    if folder.exists() and not ours and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            expected="a new or empty folder, or one that save_pretrained made",
            received=f"{folder}, which holds other files",
            do="choose another folder",
        )
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items() if name != CARD}
    manifest = {"schema": SCHEMA, "foveate": foveate.__version__, "files": digests}
    if not ours:
        files.write_json(folder / MANIFEST, manifest)
    for name in FILES:
        if name not in (*contents, MANIFEST):
            (folder / name).unlink(missing_ok=True)
    for name, content in contents.items():
        files.write_bytes(folder / name, content)
    files.write_json(folder / MANIFEST, manifest)


def _is_ours(manifest: Path) -> bool:
    try:
        return {"schema", "foveate"} <= files.read_json(manifest).keys()
    except DataError:
        return False


def find(source: Path | str, revision: str | None = None) -> Path:
    """Return the folder of a repository, checked; one that is no folder here is downloaded from the Hub.

    Raises UsageError for neither, and DataError where it cannot be read or its files are not those of its manifest.
    """
    folder = Path(source)
    if not folder.is_dir():
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)):
            raise UsageError(
                expected='a folder, or the name of a repository such as "owner/name"',
                received=repr(str(source)),
                do="check the path",
            )
        folder = _downloaded(str(source), revision)
    _check(folder)
    return folder


def _downloaded(name: str, revision: str | None) -> Path:
    hub = imported("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=[*FILES]))
    except (OSError, ValueError) as error:  # the errors of huggingface_hub are of these kinds
        raise DataError(
            expected=f"a folder here, or a repository {name!r} that can be read",
            received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            do="check the name and the network; for a private repository, log in with: hf auth login",
        ) from error


def _check(folder: Path) -> None:
    again = "save or download it again"
    if not (folder / MANIFEST).is_file():
        do = "make it with foveate.hub.save_pretrained; for an adapter file alone, use foveate.load_adapter"
        raise UsageError(expected="a repository of Foveate", received=f"{folder}, without {MANIFEST}", do=do)
    manifest = files.read_json(folder / MANIFEST, again)
    listed = manifest.get("files")
    if manifest.get("schema") != SCHEMA or not isinstance(listed, dict) or not listed.keys() <= {*FILES}:
        raise DataError(
            expected=f"a repository of schema {SCHEMA}",
            received=f"{folder / MANIFEST} of schema {manifest.get('schema')}, of foveate {manifest.get('foveate')}",
            do="update foveate",
        )
    for name in FILES:
        path = folder / name
        found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        if name not in (CARD, MANIFEST) and found != listed.get(name):
            received = f"{path}: " + ("it is missing" if found is None else "its sha256 is another")
            raise DataError(expected=f"the files that {MANIFEST} lists", received=received, do=again)
