"""Working copies: images decoded and reduced, as they are before any random change, and the cache that keeps them."""

import mmap
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from foveate.checks import check_choice
from foveate.data.images.cache_place import ROOM
from foveate.data.images.decode import Greys, read_image, reduced
from foveate.data.images.reduction import Reduction, Size
from foveate.errors import UsageError

__all__ = ["CACHES", "IN_RAM", "CacheKind", "CacheOptions", "RamStore", "WorkingCopies", "open_copies"]

CacheKind = Literal["none", "ram", "disk"]
CACHES: tuple[CacheKind, ...] = get_args(CacheKind)


@dataclass(frozen=True)
class CacheOptions:
    """Where working copies are kept, and in how many GiB at most; None takes 0.5 in memory and 10 on disk.

    Raises:
        UsageError: an unknown kind of cache, or a size that is not positive or has no cache.
    """

    kind: CacheKind = "ram"
    size: float | None = None

    def __post_init__(self) -> None:
        check_choice("cache", self.kind, CACHES)
        if self.size is None:
            return
        if self.kind == "none":
            raise UsageError(
                expected="--cache-size with --cache ram or disk",
                received=f"--cache-size {self.size:g} with --cache none",
                do="leave it out",
            )
        if not 0 < self.size < float("inf"):
            raise UsageError(
                expected="cache-size: a positive number of GiB", received=repr(self.size), do="change --cache-size"
            )

    @property
    def limit(self) -> int:
        """The largest number of bytes that are kept."""
        return int(2**30 * (ROOM[self.kind] if self.size is None else self.size))


IN_RAM = CacheOptions()


class Store(Protocol):
    """Keeps working copies by the paths of their images; `whole` says whether it has room for all of them."""

    whole: bool

    def get(self, path: str) -> NDArray[np.uint8] | None:
        """Return a working copy as it was kept, read-only; None if it was not."""
        ...

    def keep(self, path: str, image: NDArray[np.uint8]) -> None:
        """Keep a working copy if there is room."""
        ...


class WorkingCopies:
    """The images of a folder as training reads them, by path: `[path]` is uint8 (H, W, 3)."""

    def __init__(
        self,
        root: Path,
        reductions: Mapping[str, Reduction],
        greys: Greys | None = None,
        store: Store | None = None,
    ):
        self.root, self.reductions, self.greys, self.store = root, reductions, greys, store

    def __getitem__(self, path: str) -> NDArray[np.uint8]:
        """Return a working copy. Raises DataError, which names the file, if it does not decode."""
        image = None if self.store is None else self.store.get(path)
        if image is None:
            reduction = self.reductions[path]
            image = reduced(read_image(self.root / path, reduction=reduction, greys=self.greys), reduction)
            if self.store is not None:
                self.store.keep(path, image)
        return image


class RamStore:
    """Working copies in memory that this process shares with the processes that it forks, such as a loader's workers.

    Each image has its place from the beginning, in the order of `sizes`, as long as there is room. A copy of the store
    in a process that was not forked keeps nothing.
    """

    def __init__(self, sizes: Mapping[str, Size], limit: int):
        self._places: dict[str, tuple[int, int, Size]] = {}
        end = 8 * len(sizes)  # the checksums come first
        for path, (width, height) in sizes.items():
            if end + 3 * width * height <= limit:
                self._places[path] = (len(self._places), end, (width, height))
                end += 3 * width * height
        try:
            self._memory = np.frombuffer(mmap.mmap(-1, max(8, end)), np.uint8)  # its pages exist once they are written
        except OSError:  # the system has not that much
            self._memory, self._places = np.zeros(8, np.uint8), {}
        self.whole = len(self._places) == len(sizes)
        self._checksums = self._memory[: 8 * len(self._places)].view(np.int64)
        self._seen: set[str] = set()

    def get(self, path: str) -> NDArray[np.uint8] | None:
        """Return the image, or None if it was not kept, or another process is still writing it."""
        if path not in self._places:
            return None
        number, begin, (width, height) = self._places[path]
        image = self._memory[begin : begin + 3 * width * height].reshape(height, width, 3)
        if path not in self._seen:
            if self._checksums[number] != _checksum(image):
                return None
            self._seen.add(path)
        image.flags.writeable = False
        return image

    def keep(self, path: str, image: NDArray[np.uint8]) -> None:
        """Keep an image that has its place and the size that was expected."""
        number, begin, (width, height) = self._places.get(path, (0, 0, (0, 0)))
        if image.shape == (height, width, 3):
            self._memory[begin : begin + image.nbytes] = image.reshape(-1)
            self._checksums[number] = _checksum(image)

    def __getstate__(self) -> dict[str, Any]:
        """Return a store without places: a process that was not forked does not share this memory."""
        nothing = np.zeros(0, np.uint8)
        return {**vars(self), "_places": {}, "_memory": nothing, "_checksums": nothing, "_seen": set()}


def open_copies(
    root: Path,
    reductions: Mapping[str, Reduction],
    sizes: Mapping[str, Size],
    digests: Mapping[str, str],
    greys: Greys | None,
    cache: CacheOptions,
) -> WorkingCopies:
    """Return the working copies of images, given the (width, height) and the sha256 of each file."""
    own = {path: reduction.size(sizes[path]) for path, reduction in reductions.items()}
    store: Store | None = None
    if cache.kind == "ram":
        store = RamStore(own, cache.limit)
    elif cache.kind == "disk":
        from foveate.data.images.disk_store import DiskStore, recipe

        recipes = {path: recipe(digests[path], reduction, greys) for path, reduction in reductions.items()}
        store = DiskStore(root, own, digests, recipes, cache.limit)
    return WorkingCopies(root, reductions, greys, store)


def _checksum(image: NDArray[np.uint8]) -> int:
    """Return the CRC-32 of an image, plus a bit so that it is never that of an empty place, 0."""
    return zlib.crc32(np.ascontiguousarray(image).data) | 1 << 32
