"""Storage that several machines share: a folder, or an object store by its URL; what is written is whole or absent."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from foveate import files
from foveate.errors import UsageError, missing_extra

OBJECT_STORES = {"s3": "s3", "gs": "gcsfs", "az": "adlfs"}
"""The protocols of URLs, with the extra (or the package) that reads them. Each PUT of these stores is atomic."""


class Storage(Protocol):
    """Files by relative names, with slashes."""

    def read(self, name: str) -> bytes | None:
        """Return the content, None where there is no such file."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file; another of that name is replaced."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one of that name, and return whether it was written."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names of the files below a folder, relative to it, sorted."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file that is there."""
        ...


def checked_place(place: str) -> str:
    """Return a folder as an absolute path, or the URL of an object store.

    Raises UsageError for another URL, and for one with a user name or a password, which it does not repeat.
    """
    match = re.match(r"([^/]+)://(.*)", place, re.DOTALL)
    if not match:
        return str(Path(place).absolute())
    if match[1] not in OBJECT_STORES:
        raise UsageError(
            expected=f"a folder, or a URL of {', '.join(f'{name}://' for name in OBJECT_STORES)}",
            received="a URL of another protocol",
            do="mount that storage on every node, and give the folder",
        )
    if "@" in match[2] or "?" in match[2]:
        raise UsageError(
            expected="a URL without a user name, a password or a query",
            received=f"a URL of {match[1]}:// with one",
            do="set what the storage library reads: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
        )
    return place.rstrip("/")


def open_storage(place: str) -> Storage:
    """Open a place that `checked_place` returned. Raises MissingExtra or UsageError for an absent package."""
    return _Objects(place) if "://" in place else _Folder(Path(place))


@contextmanager
def reached(place: str) -> Iterator[None]:
    """Turn the errors of a storage, which each library has its own of, into UsageError."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            expected=f"storage at {place} that can be read and written",
            received=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            do="check the place and the credentials, which the storage library reads from its own environment",
        ) from None


class _Folder:
    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        files.write_bytes(self.folder / name, content)

    def create(self, name: str, content: bytes) -> bool:
        return files.write_once(self.folder / name, content)

    def names(self, folder: str) -> list[str]:
        home = self.folder / folder
        found = (path for path in home.rglob("*") if path.is_file() and not path.name.endswith(files.TEMPORARY))
        return sorted(path.relative_to(home).as_posix() for path in found)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()


class _Objects:
    def __init__(self, url: str):
        import fsspec

        protocol = url.partition("://")[0]
        try:
            filesystem, root = fsspec.url_to_fs(url, use_listings_cache=False)
        except ImportError:
            package = OBJECT_STORES[protocol]
            if package == "s3":
                raise missing_extra("s3fs", package) from None
            raise UsageError(
                expected=f"the package {package!r}", received="an environment without it", do=f"pip install {package}"
            ) from None
        self._files: Any = filesystem
        self.root = root.rstrip("/")

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def read(self, name: str) -> bytes | None:
        try:
            return self._files.cat_file(self._path(name))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        self._files.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        try:
            self._files.pipe_file(self._path(name), content, mode="create")  # S3: If-None-Match, checked by the store
        except FileExistsError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        home = self._path(folder) + "/"
        return sorted(path.removeprefix(home) for path in self._files.find(home))

    def remove(self, name: str) -> None:
        self._files.rm_file(self._path(name))
