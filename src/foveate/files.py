"""Write files atomically (to a temporary file, which is then renamed), and lock a folder for one process."""

import csv
import io
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foveate.errors import DataError, UsageError

TEMPORARY = ".part"
LOCK = ".lock"
CACHE = "FOVEATE_CACHE"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any time leaves the old content or the new, never a part of it.

    Raises OSError and leaves the old content.
    """
    with _beside(path, content) as temporary:
        temporary.replace(path)


def write_once(path: Path, content: bytes) -> bool:
    """Write a file as `write_bytes` does unless it exists, and return whether it was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _beside(path, content) as temporary:
            _link(temporary, path)
    except FileExistsError:
        return False
    return True


def _link(temporary: Path, path: Path) -> None:
    """Give a file its name; unlike a rename, this does not replace a file that another machine wrote."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # some file systems have no links: the little time between the two calls is then unguarded
        if path.exists():
            raise FileExistsError(path) from None
        temporary.replace(path)


@contextmanager
def _beside(path: Path, content: bytes) -> Iterator[Path]:
    """Write the content to a temporary file beside a path, for the block to put in place."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")  # machines may share a folder
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink()
    _sync_folder(path.parent)


def cache_folder() -> Path:
    """Return the folder for what can be made again: that of the variable FOVEATE_CACHE, else ~/.cache/foveate."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "foveate")


def sweep(folder: Path) -> None:
    """Remove temporary files of interrupted writes from a folder that no other process writes to."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as `write_whole` does, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def try_place(path: Path, write: Callable[[Path], object]) -> None:
    """Make the folder of a file, and try to write the file beside its place: now rather than after hours of work.

    Raises DataError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            write(Path(folder) / path.name)
    except OSError as error:
        raise DataError(
            expected="a path that can be written", received=f"{path}: {error.strerror or error}", do="check the path"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity become null, as JSON cannot hold them."""
    write_bytes(path, (json.dumps(_finite(value), indent=1, allow_nan=False) + "\n").encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a table atomically; a column that a row does not have stays empty."""
    write_table(path, columns, ([row.get(name) for name in columns] for row in rows))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table atomically; two columns may have the same name, as users choose class names."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def read_json(path: Path, do: str = "remove it and --resume") -> dict[str, Any]:
    """Read a JSON object of a record. Raises DataError, which names the file and says what to `do`."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            expected=f"a readable record at {path}", received=f"{type(error).__name__}: {error}", do=do
        ) from None
    if not isinstance(value, dict):
        raise DataError(expected=f"a JSON object in {path}", received=f"a {type(value).__name__}", do=do)
    return value


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON object to a log; a last line that a crash left incomplete is ended first."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(_finite(value), allow_nan=False).encode() + b"\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a log, without lines that a crash left incomplete."""
    if path.exists():
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    yield value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder for this process until the block or the process ends.

    Raises UsageError if another process has locked it.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            expected=f"a run folder that no other process is working on: {folder}",
            received="a folder that another process is working on",
            do="wait until it ends, or choose another name for a new run",
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows, an open file cannot be removed
            (folder / LOCK).unlink()
        lock.release()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems and platforms cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
