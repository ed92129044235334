"""Faults at the points where a file is written: kill -9, a full disk, a folder that is read-only, an error of the disk.

It imports no torch, so that a process that pretends to train can use it.
"""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from foveate import files

Point = tuple[str, str, int]
"""A stage of writing, the name of the file, and how often it was reached before."""

STAGES = ("open", "write", "sync", "rename", "renamed")
ERRORS = {"full disk": ("write", errno.ENOSPC), "read-only": ("open", errno.EROFS), "broken disk": ("sync", errno.EIO)}


def kill() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def points(act: Callable[[Point], None]) -> Iterator[None]:
    """Call `act` at each point of writing that the block reaches; at "write", half of the content has been written."""
    seen: dict[tuple[str, str], int] = {}
    names: dict[int, str] = {}
    opens, sync, replace = Path.open, os.fsync, Path.replace

    def reach(stage: str, path: Path) -> None:
        name = path.name.removeprefix(".").split(".")[0:2] if path.name.endswith(files.TEMPORARY) else [path.name]
        key = stage, ".".join(name)
        seen[key] = seen.get(key, -1) + 1
        act((*key, seen[key]))

    class Watched:
        """A file that is being written."""

        def __init__(self, path: Path, file: Any):
            self.path, self.file = path, file

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def __enter__(self) -> "Watched":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def fileno(self) -> int:
            names[self.file.fileno()] = str(self.path)
            return self.file.fileno()

        def write(self, content: bytes) -> int:
            half = len(content) // 2
            self.file.write(content[:half])
            self.file.flush()
            reach("write", self.path)
            return half + self.file.write(content[half:])

    def opening(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if not set(mode) & set("wa+"):
            return opens(path, mode, *args, **options)
        reach("open", path)
        return Watched(path, opens(path, mode, *args, **options))

    def syncing(descriptor: int) -> None:
        if descriptor in names:
            reach("sync", Path(names.pop(descriptor)))
        sync(descriptor)

    def replacing(path: Path, target: Path) -> Any:
        reach("rename", target)
        found = replace(path, target)
        reach("renamed", target)
        return found

    with patch.object(Path, "open", opening), patch("os.fsync", syncing), patch.object(Path, "replace", replacing):
        yield


def killed_at(point: Point) -> Any:
    """Return a context in which this process is killed at a point."""
    return points(lambda reached: kill() if reached == point else None)


def die_once(flag: str, point: Point) -> None:
    """Let this process be killed at a point, unless an earlier one made the file `flag` here."""
    if not Path(flag).exists():
        Path(flag).touch()
        _entered.append(killed_at(point))
        _entered[-1].__enter__()


_entered: list[Any] = []


def failing_from(point: Point, code: int) -> Any:
    """Return a context in which a stage fails with an error of the system, from a point on."""
    begun: list[Point] = []

    def fail(reached: Point) -> None:
        if reached == point or (begun and reached[0] == point[0]):
            begun.append(reached)
            raise OSError(code, os.strerror(code))

    return points(fail)


def reached_by(act: Callable[[], object]) -> list[Point]:
    """Return the points that a call reaches, in order."""
    found: list[Point] = []
    with points(found.append):
        act()
    return found
