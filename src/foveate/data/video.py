"""Frames of a video file, one by one, through PyAV."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveate.data.images import MAX_PIXELS, shown
from foveate.errors import DataError, missing_extra

__all__ = ["VIDEOS", "frames"]

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"})


def frames(path: Path, every: int = 1) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield the number and the pixels, RGB uint8 (H, W, 3), of each `every`-th frame, counted from 0.

    Raises:
        DataError: the file does not decode, from the beginning or from some frame on; earlier frames have then been yielded.
        UsageError: PyAV is not installed.
    """
    try:
        import av
        from av.error import FFmpegError
    except ImportError:
        raise missing_extra("av", "detect") from None
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if frame.width * frame.height > MAX_PIXELS:
                    raise _unreadable(path, f"frames of {frame.width} x {frame.height} pixels")
                if number % every == 0:
                    yield number, np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (FFmpegError, IndexError, ValueError) as error:  # no video stream is an IndexError
        raise _unreadable(path, f"{type(error).__name__}: {error}") from None


def _unreadable(path: Path, received: str) -> DataError:
    return DataError(expected=f"a readable video in {shown(path)}", received=received, do="convert it, for example to MP4 with H.264")
