"""Files that are whole or absent: written beside, flushed to disk, then renamed into place; and folders held by one process."""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from foveate.errors import DataError, UsageError

TEMPORARY = ".part"
LOCK = ".lock"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new, never a piece. Raises OSError, leaving the old."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove what interrupted writes left in a folder that no other process writes to."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as `write_whole` does, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN and infinity become null, which is all that JSON has for them."""
    write_bytes(path, (json.dumps(_finite(value), indent=1, allow_nan=False) + "\n").encode())


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write a table atomically; columns that a row lacks stay empty."""
    write_table(path, columns, ([row.get(name) for name in columns] for row in rows))


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table atomically whose columns may share a name, as users' class names do."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def read_json(path: Path, do: str = "remove it and --resume") -> dict[str, Any]:
    """Read a JSON object of the record. Raises DataError, naming the file and what to `do`."""
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
    """Append one JSON object to a log; a torn last line, left by a crash, is closed first."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(_finite(value), allow_nan=False).encode() + b"\n")


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a log, without the lines that a crash tore."""
    if path.exists():
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    yield value


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a run's folder to this process; whatever ends the process lets go of it. Raises UsageError while another has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(
            expected=f"a run that no other process works on at {folder}",
            received="one that another process is working on",
            do="wait until it ends, or choose another name for a new run",
        ) from None
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows, a file that is open stays
            (folder / LOCK).unlink()
        lock.release()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system or platform lets a folder be synced
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
