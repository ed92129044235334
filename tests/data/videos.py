"""Small videos, to read and to damage in tests."""

import io
import struct

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 64, 32
TITLE = "coffee"


def still() -> NDArray[np.uint8]:
    """Return an image with white, grey, black and grey corners, so that all its rotations and mirror images differ."""
    picture = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    picture[: HEIGHT // 2, : WIDTH // 2], picture[HEIGHT // 2 :, : WIDTH // 2] = 255, 0
    return picture


def clip(count: int = 4, form: str = "mp4", picture: NDArray[np.uint8] | None = None, **options: str) -> bytes:
    """Return a video that shows one image for `count` frames."""
    picture, content = still() if picture is None else picture, io.BytesIO()
    with av.open(content, "w", format=form, options=options) as container:
        container.metadata["title"] = TITLE
        stream = container.add_stream("mpeg4", rate=5)
        stream.height, stream.width = picture.shape[:2]  # type: ignore[attr-defined]
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))  # type: ignore[attr-defined]
        container.mux(stream.encode())  # type: ignore[attr-defined]
    return content.getvalue()


def turned(content: bytes, a: int, b: int, c: int, d: int) -> bytes:
    """Return the video with a display matrix, as phones write it: (x, y) is shown at (a x + c y, b x + d y)."""
    one = 1 << 16

    def matrix(*parts: int) -> bytes:
        return struct.pack(">9i", parts[0] * one, parts[1] * one, 0, parts[2] * one, parts[3] * one, 0, 0, 0, 1 << 30)

    track = content.index(b"tkhd")
    place = content.index(matrix(1, 0, 0, 1), track)
    return content[:place] + matrix(a, b, c, d) + content[place + 36 :]
