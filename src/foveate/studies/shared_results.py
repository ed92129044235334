"""The results of one study in storage that all nodes share: its records, and each trial that has ended.

A trial NAME is `trials/NAME/trial.json` and its other files below `trials/NAME/DIGEST/`, where DIGEST is that of
trial.json. So two runs of one trial never mix their files, and trial.json, written last and once, decides which counts.
In the same way, study.json decides between two studies, whose other records are below `records/DIGEST/`.
"""

import hashlib
import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.errors import UsageError
from foveate.experiment.run_folder import RECORDS, free_folder, numbered
from foveate.files import read_json
from foveate.storage import Storage, open_storage, reached
from foveate.studies.remote_trial import Contents, read_folder, write_folder

STUDY = "study.json"
_ENDED = ("done", "diverged")  # failed trials run again


@dataclass(frozen=True)
class SharedResults:
    """The results of the study with this id at a place that `checked_place` returned."""

    place: str
    id: str

    @property
    def storage(self) -> Storage:
        """The storage, opened where this runs."""
        return open_storage(self.place)

    def require_here(self) -> None:
        """Raise UsageError where the place does not hold this study, as on a node that did not mount it.

        Raises the storage's own error where it does not answer.
        """
        found = study_at(self.place)
        if found is None or found["id"] != self.id:
            raise UsageError(
                expected=f"the results of this study at {self.place}",
                received="another study" if found else "an empty place",
                do="mount the same storage there on every node; foveate doctor --nodes --results looks",
            )

    def has(self, name: str) -> bool:
        """Return whether a trial has ended, other than by an error."""
        return _ended(self.storage.read(f"trials/{name}/trial.json"))

    def put(self, name: str, contents: Contents) -> None:
        """Write the files of a trial, trial.json last; the first result stays, unless it is an error."""
        storage, result = self.storage, contents["trial.json"]
        home = f"trials/{name}/{_digest(result)}"
        for file in sorted(contents.keys() - {"trial.json"}):
            storage.write(f"{home}/{file}", contents[file])
        if storage.create(last := f"trials/{name}/trial.json", result):
            return
        if (before := storage.read(last)) is not None and _ended(before):
            if _digest(before) != _digest(result):
                for file in contents.keys() - {"trial.json"}:
                    storage.remove(f"{home}/{file}")
        else:
            storage.write(last, result)

    def get(self, name: str) -> Contents:
        """Return the files of a trial that has ended. Raises UsageError where they cannot be read."""
        storage = self.storage
        with reached(self.place):
            result = _required(storage, f"trials/{name}/trial.json")
            home = f"trials/{name}/{_digest(result)}"
            found = {file: _required(storage, f"{home}/{file}") for file in storage.names(home)}
        return {**found, "trial.json": result}

    def exchange(self, folder: Path, names: Collection[str]) -> None:
        """Copy the trials that ended only in the storage into a study's folder, and the other way round.

        Others than those of these names stay where they are.
        """
        homes = {name: folder / "trials" / name for name in names}
        ours = {name for name, home in homes.items() if _ended(_content(home / "trial.json"))}
        with reached(self.place):
            theirs = {name for name in homes.keys() & _trials(self.storage) if self.has(name)}
            for name in sorted(ours - theirs):
                self.put(name, read_folder(homes[name]))
        for name in sorted(theirs - ours):
            contents = self.get(name)
            if homes[name].exists():  # of an error
                shutil.rmtree(homes[name])
            write_folder(homes[name], contents, last="trial.json")


def study_at(place: str) -> dict[str, Any] | None:
    """Return study.json of the study at a place, None for an empty place."""
    content = open_storage(place).read(STUDY)
    return None if content is None else json.loads(content)


def require_empty(place: str) -> None:
    """Raise UsageError unless a new study may begin at a place."""
    with reached(place):
        found = study_at(place)
    if found is not None:
        raise UsageError(
            expected=f"an empty place for the results of a new study: {place}",
            received="the results of another one",
            do="finish that one with --resume, or give another --results",
        )


def local_folder(place: str, parent: Path, name: str) -> Path | None:
    """Return the folder of the study at a place on this machine, which is made where it is absent; None for no study.

    Raises UsageError where the storage does not answer.
    """
    with reached(place):
        study = study_at(place)
        if study is None:
            return None
        for folder in numbered(parent, name):
            if (folder / STUDY).is_file() and read_json(folder / STUDY).get("id") == study["id"]:
                return folder
        storage = open_storage(place)
        last = _required(storage, STUDY)
        records = {file: _required(storage, f"{_records(last)}/{file}") for file in RECORDS}
    folder = free_folder(parent, name)
    write_folder(folder, {**records, STUDY: last}, last=STUDY)
    return folder


def share(place: str, folder: Path, names: Collection[str]) -> SharedResults:
    """Write the records of a study to a place, unless they are there, and exchange its trials that have ended.

    `names` are those of its trials.

    Raises UsageError for a place that holds another study, or that cannot be reached.
    """
    shared, storage = SharedResults(place, read_json(folder / STUDY)["id"]), open_storage(place)
    with reached(place):
        if study_at(place) is None:
            last = (folder / STUDY).read_bytes()
            for file in RECORDS:
                storage.write(f"{_records(last)}/{file}", (folder / file).read_bytes())
            storage.create(STUDY, last)
        shared.require_here()
    shared.exchange(folder, names)
    return shared


def _records(study: bytes) -> str:
    return f"records/{_digest(study)}"


def _trials(storage: Storage) -> set[str]:
    return {name.removesuffix("/trial.json") for name in storage.names("trials") if name.endswith("/trial.json")}


def _required(storage: Storage, name: str) -> bytes:
    """Return the content of a file. Raises FileNotFoundError for none."""
    if (content := storage.read(name)) is None:
        raise FileNotFoundError(name)
    return content


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _ended(content: bytes | None) -> bool:
    return content is not None and json.loads(content)["status"] in _ENDED


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
