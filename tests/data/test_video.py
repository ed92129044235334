"""Videos are read as they are shown; each kind of damaged file is refused, and no read waits for ever."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from data.test_mutants import mutant
from data.videos import HEIGHT, TITLE, WIDTH, clip, still, turned
from foveate.data.images.video import frames
from foveate.errors import DataError, UsageError


@pytest.mark.parametrize("form", ["mp4", "matroska", "avi", "mpeg"])
@pytest.mark.parametrize("every", [1, 3])
def test_each_frame_that_is_asked_for(form: str, every: int, tmp_path: Path) -> None:
    path = tmp_path / "clip"
    path.write_bytes(clip(7, form))
    found = list(frames(path, every))
    assert [number for number, _ in found] == list(range(0, 7, every))
    for _, pixels in found:
        assert (pixels.shape, pixels.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
        np.testing.assert_allclose(pixels.astype(int), still(), atol=40)  # mpeg4 is lossy, most of all at edges


# the rotation that a phone stores, and the same rotation of the stored image
TURNS = {
    (1, 0, 0, 1): lambda stored: stored,
    (0, 1, -1, 0): lambda stored: np.rot90(stored, -1),  # to the right
    (-1, 0, 0, -1): lambda stored: np.rot90(stored, 2),
    (0, -1, 1, 0): lambda stored: np.rot90(stored, 1),
    (-1, 0, 0, 1): lambda stored: stored[:, ::-1],
    (1, 0, 0, -1): lambda stored: stored[::-1],
    (0, 1, 1, 0): lambda stored: stored.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("turn", TURNS)
def test_a_video_is_turned_upright(turn: tuple[int, int, int, int], tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    path.write_bytes(clip(1))
    ((_, stored),) = frames(path)
    path.write_bytes(turned(clip(1), *turn))
    ((_, shown),) = frames(path)
    np.testing.assert_array_equal(shown, TURNS[turn](stored))


def listing(path: Path) -> bytes:
    """Write a file that FFmpeg would use as a list of other files to read, whatever its name is."""
    (path.parent / "other.mp4").write_bytes(clip(1))
    return b"ffconcat version 1.0\nfile other.mp4\n"


SESSION = (
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
DAMAGED = {
    "empty": (lambda path: b"", "an empty file"),
    "text": (lambda path: b"no video", "InvalidDataError"),
    "cut in its beginning": (lambda path: clip()[:100], "InvalidDataError"),
    "cut before its index": (lambda path: clip()[:244], "IndexError"),
    "cut within its index": (lambda path: clip()[:488], "DecoderNotFoundError"),
    "cut before the first frame": (
        lambda path: (whole := clip(movflags="empty_moov"))[: whole.index(b"moof") - 4],
        "no frame",
    ),
    "a list of other files": (listing, "ArgumentError"),
    "a session on the network": (lambda path: SESSION, "ArgumentError"),  # FFmpeg would wait 20 seconds for it
}


def test_a_title_that_is_not_utf_8_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(clip(2).replace(TITLE.encode(), b"caf\xe9 \xff"))
    assert len(list(frames(path))) == 2


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_file_that_is_not_a_video_is_refused(kind: str, tmp_path: Path) -> None:
    make, received = DAMAGED[kind]
    path = tmp_path / "clip.mp4"
    path.write_bytes(make(path))
    with pytest.raises(DataError, match=r"a readable video in .*clip\.mp4") as caught:
        list(frames(path))
    assert received in caught.value.received


def test_frames_before_the_damage_are_yielded(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    whole = clip(7, "matroska")
    path.write_bytes(whole[: len(whole) - 50])
    assert 0 < len(list(frames(path))) < 7


def test_mutants_decode_or_are_refused(tmp_path: Path) -> None:
    rng, whole, refused = np.random.default_rng(0), [clip(2, form) for form in ("mp4", "matroska", "avi", "mpeg")], 0
    for _ in range(200):
        (tmp_path / "clip.mp4").write_bytes(mutant(rng, whole))
        try:
            list(frames(tmp_path / "clip.mp4"))
        except DataError:
            refused += 1
    assert 20 < refused < 180


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    with pytest.raises(DataError, match="a pipe or a device"):
        list(frames(tmp_path / "clip.mp4"))
    with pytest.raises(DataError, match="No such file"):
        list(frames(tmp_path / "none.mp4"))


def test_without_pyav_the_fix_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r'pip install "foveate\[detect\]"'):
        list(frames(tmp_path / "clip.mp4"))
