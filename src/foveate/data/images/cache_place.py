"""Where working copies are kept on disk, how many there are, and in how many GiB at most; it needs no package."""

from contextlib import suppress
from pathlib import Path

from foveate.files import TEMPORARY, cache_folder

__all__ = ["EACH", "ROOM", "copies_folder", "kept"]

ROOM = {"none": 0.0, "ram": 0.5, "disk": 10.0}  # GiB, where --cache-size says nothing
EACH = "??/*"
"""The files of working copies in their folder, and those that are being written."""


def copies_folder() -> Path:
    """Return the folder of the working copies on disk, which may be absent."""
    return cache_folder() / "images"


def kept() -> tuple[int, int]:
    """Return how many working copies are on disk, and their bytes; nothing is changed."""
    sizes = []
    for file in copies_folder().glob(EACH):
        if file.suffix != TEMPORARY:
            with suppress(OSError):  # another process removed it
                sizes.append(file.stat().st_size)
    return len(sizes), sum(sizes)
