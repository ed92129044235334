"""What a box file says of one picture, and the checks that every format shares."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Picture"]


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture and the truth about it.

    `path` is relative to the data folder, with `/`; `size` (width, height) in pixels as displayed; `boxes` float32 (M, 4), xyxy
    in pixels, half-open; `labels` int64 (M,); `crowd` and `difficult` bool (M,) mark what neither counts as found nor as missed.
    """

    path: str
    size: tuple[int, int]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    difficult: NDArray[np.bool_]

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """Crowd or difficult, bool (M,)."""
        return self.crowd | self.difficult

    @classmethod
    def plain(cls, path: str, size: tuple[int, int], boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> "Picture":
        """Return a picture of which no box is crowd or difficult."""
        none = np.zeros(len(labels), bool)
        return cls(path, size, boxes, labels, none, none)
