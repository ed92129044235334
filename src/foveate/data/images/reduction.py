"""The size of an image's working copy, and the scale at which a JPEG may be decoded for it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Reduction", "Size"]

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""

_LONGEST = 3  # highest aspect ratio by the shorter side: only the middle of a longer panorama is kept
_SCALES = (8, 4, 2)  # at which JPEG's decoder can leave out detail: a half, a quarter, an eighth of each side


@dataclass(frozen=True)
class Reduction:
    """The shorter or the longer side reduced to `side` pixels; by the shorter side, panoramas lose their ends.

    Nothing is enlarged.
    """

    side: int
    by: Literal["shorter", "longer"] = "shorter"

    def kept(self, size: Size) -> Size:
        """Return the width and height of the middle that is kept of an image."""
        if self.by == "longer":
            return size
        return min(size[0], _LONGEST * min(size)), min(size[1], _LONGEST * min(size))

    def size(self, size: Size) -> Size:
        """Return the width and height of the working copy of an image."""
        scale = min(1.0, self.side / (min if self.by == "shorter" else max)(size))
        width, height = self.kept(size)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def decodes_at(self, size: Size) -> int:
        """Return the largest scale, 8, 4, 2 or 1, at which a JPEG has pixels enough for a copy of the same size."""
        for scale in _SCALES:
            if self.size((-(-size[0] // scale), -(-size[1] // scale))) == self.size(size):
                return scale
        return 1
