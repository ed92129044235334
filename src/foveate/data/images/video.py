"""The frames of a video file, read one by one with PyAV."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foveate.data.images.decode import MAX_PIXELS, open_regular, shown
from foveate.errors import DataError, missing_extra

if TYPE_CHECKING:
    from av import VideoFrame

__all__ = ["VIDEOS", "frames"]

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})
# FFmpeg recognises formats by content; files of some other formats make it read further files or open the network.
_FORMATS = "mov,matroska,avi,mpeg,mpegvideo,mpegts"


def frames(path: Path, every: int = 1) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the number, from 0, and the upright pixels, RGB uint8 (H, W, 3), of each `every`-th frame.

    Raises:
        DataError: the file has no frames, or does not decode; frames before the damage are yielded first.
        UsageError: PyAV is not installed.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise missing_extra("av", "detect") from None
    number = -1
    try:
        formats = {"format_whitelist": _FORMATS}
        with open_regular(path) as file, av.open(file, "r", options=formats, metadata_errors="replace") as container:
            for number, frame in enumerate(container.decode(video=0)):
                if frame.width * frame.height > MAX_PIXELS:
                    raise _unreadable(path, f"frames of {frame.width} x {frame.height} pixels")
                if number % every == 0:
                    yield number, _upright(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), frame)
        if number < 0:
            raise _unreadable(path, "no frame")
    except DataError as error:  # the message of `open_regular` speaks of an image
        raise _unreadable(path, error.received) from None
    except (FFmpegError, IndexError, ValueError) as error:  # no video stream is an IndexError
        raise _unreadable(path, f"{type(error).__name__}: {error}") from None


def _upright(pixels: NDArray[np.uint8], frame: "VideoFrame") -> NDArray[np.uint8]:
    """Return the pixels rotated for display: phones store the sensor's image together with a rotation."""
    note = frame.side_data.get("DISPLAYMATRIX")
    if note is None:
        return pixels
    # (x, y) is shown at (a x + c y, b x + d y)
    a, b, _, c, d = np.frombuffer(note, np.int32, 5)  # pyright: ignore[reportArgumentType]
    turned = abs(b) > abs(a)
    rows, columns = (b, c) if turned else (d, a)
    pixels = pixels.transpose(1, 0, 2) if turned else pixels
    return np.ascontiguousarray(pixels[:: -1 if rows < 0 else 1, :: -1 if columns < 0 else 1])


def _unreadable(path: Path, received: str) -> DataError:
    return DataError(
        expected=f"a readable video in {shown(path)}", received=received, do="convert it, for example to MP4 with H.264"
    )
