"""A trial on a node of a cluster: find or unpack what it reads, compare, train, and give its files back.

Nothing here knows Ray; docs/design/engines.md explains the steps.
"""

import hashlib
import platform
import queue
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Protocol

import torch

import foveate
from foveate import files
from foveate.errors import DataError, FoveateError, UsageError
from foveate.experiment.data import content_digest, open_study_data
from foveate.experiment.options import moved, moved_name
from foveate.studies.trial import Trial, run_trial

Contents = dict[str, bytes]
"""The files below a folder by relative name, with slashes; or one file, under the name ""."""


@dataclass(frozen=True)
class Expected:
    """What must be equal on the driver and on every node."""

    versions: dict[str, str]
    content: str

    @classmethod
    def here(cls, content: str) -> "Expected":
        """Return what is expected by a driver whose data, weights and code have this digest."""
        return cls(versions(), content)


class Parcel:
    """A file or folder of the driver that a node may lack."""

    digest: str

    def contents(self) -> Contents:
        """Return the content, which is brought to the node at the first call."""
        raise NotImplementedError


def versions() -> dict[str, str]:
    """Return the versions that must be equal on all nodes."""
    return {"python": platform.python_version(), "torch": torch.__version__, "foveate": foveate.__version__}


class Shared(Protocol):
    """Results that all nodes share, by the names of trials (`foveate.studies.shared_results`)."""

    def require_here(self) -> None:
        """Raise UsageError for other results or none, and the storage's own error where it does not answer."""
        ...

    def has(self, name: str) -> bool:
        """Return whether a trial has ended."""
        ...

    def put(self, name: str, contents: Contents) -> None:
        """Write the files of a trial."""
        ...


def run_remote(
    values: Mapping[str, Any], expected: Expected, parcels: Mapping[str, Parcel], shared: Shared | None = None
) -> Iterator[dict[str, Any]]:
    """Run a trial (`Trial.to_dict`) and yield its events: "started", "epoch", and last "done" or "refused".

    `parcels` are named by the place where the driver has them. The files of the trial's folder go to `shared`; without
    it, and where it cannot be written, "done" has them, with the reason as "why".
    """
    with tempfile.TemporaryDirectory(prefix="foveate-trial-") as folder:
        try:
            before = shared is not None and _ran_before(Path(values["folder"]).name, shared)
            trial = _prepared(Trial.from_dict(dict(values)), expected, parcels)
        except FoveateError as error:
            yield {"event": "refused", "expected": error.expected, "received": error.received, "do": error.do}
            return
        yield {"event": "started"}
        if before:  # and the driver did not hear of it
            yield {"event": "done"}
            return
        yield from _train(replace(trial, folder=Path(folder) / "trial"))
        yield _ended(trial.folder.name, read_folder(Path(folder) / "trial"), shared)


def _ran_before(name: str, shared: Shared) -> bool:
    """Return whether a trial has ended in the storage; one that does not answer now may answer after the training.

    Raises UsageError as `require_here` does.
    """
    try:
        shared.require_here()
        return shared.has(name)
    except FoveateError:
        raise
    except Exception:  # each storage library has its own
        return False


def _ended(name: str, contents: Contents, shared: Shared | None) -> dict[str, Any]:
    if shared is None:
        return {"event": "done", "files": contents}
    try:
        shared.require_here()  # a mount can be lost in the meantime
        shared.put(name, contents)
    except Exception as error:  # each storage library has its own; the work of hours is not lost for it
        why = f"{type(error).__name__} on {platform.node()}: {' '.join(str(error).split())[:300]}"
        return {"event": "done", "files": contents, "why": why}
    return {"event": "done"}


def _prepared(trial: Trial, expected: Expected, parcels: Mapping[str, Parcel]) -> Trial:
    """Return the trial with the places of this node. Raises UsageError or DataError where it may not train here."""
    here, node = versions(), platform.node()
    if wrong := [f"{name} {here[name]}, not {want}" for name, want in expected.versions.items() if here[name] != want]:
        raise UsageError(
            expected="the driver's versions on every node",
            received=f"{'; '.join(wrong)} on {node}",
            do=f"install them on {node}, or leave this node out of the cluster",
        )
    places = {place: str(unpacked(place, parcel)) for place, parcel in parcels.items() if not Path(place).exists()}
    options, arm = moved(trial.options, places), trial.arm
    if content_digest(open_study_data(options), options) != expected.content:
        raise DataError(
            expected="the driver's data, first weights and code on every node",
            received=f"other content on {node}",
            do=f"copy them to {node} again, or remove them there, so that the driver ships them",
        )
    return replace(trial, options=options, arm=replace(arm, mechanism=moved_name(arm.mechanism, places)))


def unpacked(place: str, parcel: Parcel) -> Path:
    """Return the file or folder of a parcel in the node's cache, where the first call puts it as a whole.

    Raises UsageError for a name that would leave the cache.
    """
    cache = files.cache_folder()
    home = cache / parcel.digest
    if not home.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".unpacking-") as folder:
            new = Path(folder) / "whole"
            for name, content in parcel.contents().items():
                files.write_bytes(new / _inside(Path(place).name, name), content)
            try:
                new.rename(home)
            except OSError:  # another trial of this node was faster
                if not home.exists():
                    raise
    return home / Path(place).name


def _inside(root: str, name: str) -> PurePosixPath:
    path = PurePosixPath(root) / name
    if ".." in path.parts or PurePosixPath(name).is_absolute() or "\\" in name or PureWindowsPath(name).drive:
        raise UsageError(expected="names inside the folder that is shipped", received=repr(name), do="rename that file")
    return path


def _train(trial: Trial) -> Iterator[dict[str, Any]]:
    events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def work() -> None:
        try:
            run_trial(trial, lambda row: events.put({"event": "epoch", "row": row.to_dict()}))
        finally:
            events.put(None)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    for event in iter(events.get, None):  # noqa: UP028 - Ray sends into generators, which `yield from` would pass on
        yield event
    thread.join()


def files_in(place: Path) -> list[Path]:
    """Return the files below a folder, sorted; of a file, the file."""
    return [place] if place.is_file() else [path for path in sorted(place.rglob("*")) if path.is_file()]


def digest_of(place: Path) -> str:
    """Return the digest of a file, or of the names and contents of the files below a folder."""
    digest = hashlib.sha256()
    for path in files_in(place):
        digest.update(hashlib.sha256(_relative(path, place).encode()).digest())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _relative(path: Path, place: Path) -> str:
    return "" if path == place else path.relative_to(place).as_posix()


def read_folder(folder: Path) -> Contents:
    """Return the files below a folder; of a file, its content under the name ""."""
    return {_relative(path, folder): path.read_bytes() for path in files_in(folder)}


def write_folder(folder: Path, contents: Contents, last: str) -> None:
    """Write a trial's files, `last` as the last one; a folder that has that one already stays as it is."""
    if (folder / last).exists():
        return
    for name in sorted(contents, key=lambda name: name == last):
        files.write_bytes(folder / _inside("", name), contents[name])
