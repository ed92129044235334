"""Count the work that code does, as times would also depend on the machine and its other programs."""

import cProfile
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from PIL import ImageFile

HANG = 600
"""Seconds after which a test that waits for another process fails; it decides nothing else."""


@dataclass
class Work:
    """The number of calls of Python and C functions, and of pixels of decoded images."""

    calls: int = 0
    pixels: int = 0


@contextmanager
def counted() -> Iterator[Work]:
    """Count the work inside the block."""
    work, profile, load = Work(), cProfile.Profile(), ImageFile.ImageFile.load

    def counting(image: Any) -> Any:
        work.pixels += math.prod(image.size)
        return load(image)

    with patch.object(ImageFile.ImageFile, "load", counting):
        profile.enable()
        try:
            yield work
        finally:
            profile.disable()
            work.calls = sum(entry.callcount for entry in profile.getstats())


class Clock:
    """A clock that moves only when a test advances it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
