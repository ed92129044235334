"""Working copies on disk, in the user's cache: shared by processes, named by content, verified at every reading."""

import hashlib
import logging
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import features

from foveate.data.images import decode, reduction
from foveate.data.images.cache_place import EACH, copies_folder
from foveate.data.images.reduction import Reduction, Size
from foveate.errors import DataError
from foveate.files import TEMPORARY

__all__ = ["DiskStore", "recipe"]

logger = logging.getLogger("foveate")

Result = TypeVar("Result")

_HEAD = struct.Struct("<II")  # height and width
_DIGEST = hashlib.sha256().digest_size
_LOCK, _TOTAL = ".lock", "bytes"
_PATIENCE = 5.0  # seconds to wait for another process, which needs about one to list and remove 20,000 files


def recipe(digest: str, how: Reduction, greys: decode.Greys | None) -> str:
    """Return the name of a working copy: a sha256 of all that its pixels depend on.

    That is the content of the file, the reduction, the range of 16-bit greys, and the decoder.
    """
    return hashlib.sha256(repr((digest, how, greys, decoder())).encode()).hexdigest()


@cache
def decoder() -> str:
    """Return a text that changes with the code that decodes: our own, Pillow's, and its libraries'."""
    sources = [Path(str(module.__file__)).read_bytes() for module in (decode, reduction)]
    libraries = [features.version(name) for name in ("jpg", "libjpeg_turbo", "webp", "libtiff", "zlib")]
    return repr((hashlib.sha256(b"".join(sources)).hexdigest(), PIL.__version__, libraries))


class DiskStore:
    """Working copies in `images/` of the cache folder, one file each: a sha256, height and width, then the pixels.

    All writing is done while a lock is held, so that the bytes of all files stay within the limit, whichever processes
    write. A file that is damaged is removed when it is read, without the lock, and made again.
    """

    def __init__(
        self, root: Path, sizes: Mapping[str, Size], digests: Mapping[str, str], recipes: Mapping[str, str], limit: int
    ):
        self.root, self.limit, self.folder = root, limit, copies_folder()
        self._digests, self._recipes = digests, recipes
        self._full = False
        needed = {self._file(path): _bytes(size) for path, size in sizes.items()}
        for file in needed:
            with suppress(OSError):  # there is none yet; whether the folder can be written, the lock shows
                os.utime(file)
        self.whole = bool(self._locked(lambda: self._make_room(needed)))

    def get(self, path: str) -> NDArray[np.uint8] | None:
        """Return the image; None if it was not kept, or its file is damaged."""
        file = self._file(path)
        try:
            content = memoryview(file.read_bytes())
        except OSError:
            return None
        digest, body = content[:_DIGEST], content[_DIGEST:]
        if digest != self._digest(path, body):
            logger.warning("The cache holds a damaged copy of %s; it is decoded again.", path)
            with suppress(OSError):
                file.unlink()
            return None
        height, width = _HEAD.unpack_from(body)
        return np.frombuffer(body, np.uint8, offset=_HEAD.size).reshape(height, width, 3)

    def keep(self, path: str, image: NDArray[np.uint8]) -> None:
        """Write an image if there is room, and its source still is what it was when the data were opened."""
        if self._full:
            return
        try:
            with decode.open_regular(self.root / path) as source:
                changed = hashlib.file_digest(source, "sha256").hexdigest() != self._digests[path]
        except DataError:
            return
        if not changed:
            body = _HEAD.pack(*image.shape[:2]) + image.tobytes()
            self._locked(lambda: self._write(self._file(path), self._digest(path, body) + body))

    def _write(self, file: Path, content: bytes) -> None:
        total = self._total()
        if file.exists():
            return
        if total + len(content) > self.limit:
            self._full = True
            return
        file.parent.mkdir(exist_ok=True)
        temporary = file.with_name(f"{file.name}{TEMPORARY}")
        try:
            temporary.write_bytes(content)
            temporary.replace(file)  # without fsync: what a crash leaves incomplete has another digest
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._say_total(total + len(content))

    def _make_room(self, needed: Mapping[Path, int]) -> bool:
        """Remove the files of data that were not opened for longest; return whether all that is needed then fits."""
        found = dict(self._files())
        for file in needed.keys() & found.keys():
            found[file] = (1 << 63, found[file][1])  # newer than any other
        total = sum(size for _, size in found.values())
        missing = sum(size for file, size in needed.items() if file not in found)
        for file in sorted(found, key=lambda file: found[file]):
            if file in needed:  # all others are gone
                missing = 0
            if total + missing <= self.limit:
                break
            file.unlink(missing_ok=True)
            total -= found.pop(file)[1]
        self._say_total(total)
        return total + sum(size for file, size in needed.items() if file not in found) <= self.limit

    def _files(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        """Yield each file with the time when its data were last opened, and its bytes; remove unfinished files."""
        for file in self.folder.glob(EACH):
            if file.suffix == TEMPORARY:
                file.unlink(missing_ok=True)
                continue
            with suppress(FileNotFoundError):  # damaged, and removed by its reader
                status = file.stat()
                yield file, (status.st_mtime_ns, status.st_size)

    def _total(self) -> int:
        try:
            return int((self.folder / _TOTAL).read_text())
        except (OSError, ValueError):  # the user emptied the folder, or a crash left the file incomplete
            return sum(size for _, (_, size) in self._files())

    def _say_total(self, total: int) -> None:
        (self.folder / _TOTAL).write_text(str(total))

    def _locked(self, work: Callable[[], Result]) -> Result | None:
        """Return the result of work that holds the lock; where it fails, say so, and only read from then on."""
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / _LOCK).acquire(_PATIENCE, poll_interval=0.002):
                return work()
        except (OSError, Timeout) as error:
            self._full = True
            logger.warning("Nothing more is kept in the cache %s: %s", self.folder, error)
            return None

    def _file(self, path: str) -> Path:
        name = self._recipes[path]
        return self.folder / name[:2] / name[2:]

    def _digest(self, path: str, body: bytes | memoryview) -> bytes:
        digest = hashlib.sha256(self._recipes[path].encode())  # so that a file under another name is found out too
        digest.update(body)
        return digest.digest()


def _bytes(size: Size) -> int:
    return _DIGEST + _HEAD.size + 3 * size[0] * size[1]
