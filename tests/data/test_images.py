"""RELIABILITY row 10: hostile and unusual images, each with a fixed outcome and an unchanged file."""

import hashlib
import io
import operator
import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.data.images.decode import check_image, open_regular, read_image, reduced, shown
from foveate.data.images.reduction import Reduction
from foveate.errors import DataError
from work import counted

RED, HALF_RED, WHITE = (255, 0, 0), (255, 127, 127), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def plain(mode: str = "RGB", colour: Any = RED, size: tuple[int, int] = (9, 6)) -> Image.Image:
    return Image.new(mode, size, colour)


def png(width: int, height: int, depth: int, colour_type: int, data: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)),
        *extra,
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    return (
        b"".join(packer.compress(block[: min(1 << 20, count - k)]) for k in range(0, count, 1 << 20)) + packer.flush()
    )


def frames(kind: str) -> bytes:
    return encoded(plain(), kind, save_all=True, append_images=[plain(colour=(0, 0, 255)), plain(colour=(0, 255, 0))])


def palette(transparent: bool) -> bytes:
    image = Image.new("P", (9, 6), 1)
    image.putpalette([0, 255, 0, 255, 0, 0])
    return encoded(image, "PNG", **({"transparency": 1} if transparent else {}))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


READS: dict[str, tuple[Callable[[], bytes], tuple[int, int], tuple[int, int, int]]] = {
    "rgb": (lambda: encoded(plain(), "PNG"), (6, 9), RED),
    "grey": (lambda: encoded(plain("L", 77), "PNG"), (6, 9), (77, 77, 77)),
    "bilevel": (lambda: encoded(plain("1", 1), "PNG"), (6, 9), WHITE),
    "grey of 16 bits": (
        lambda: encoded(Image.fromarray(np.full((6, 9), 0xABCD, np.uint16)), "PNG"),
        (6, 9),
        (0xAB, 0xAB, 0xAB),
    ),
    "big-endian tiff of 16 bits": (
        lambda: encoded(Image.frombytes("I;16B", (9, 6), b"\xab\xcd" * 54), "TIFF"),
        (6, 9),
        (0xAB, 0xAB, 0xAB),
    ),
    "rgb of 16 bits": (lambda: png(1, 1, 16, 2, zlib.compress(b"\0" + b"\xff\x10" + b"\0\x20" * 2)), (1, 1), RED),
    "palette": (lambda: palette(transparent=False), (6, 9), RED),
    "palette with alpha": (lambda: palette(transparent=True), (6, 9), WHITE),
    "alpha 0": (lambda: encoded(plain("RGBA", (255, 0, 0, 0)), "PNG"), (6, 9), WHITE),
    "alpha half": (lambda: encoded(plain("RGBA", (255, 0, 0, 128)), "PNG"), (6, 9), HALF_RED),
    "grey with alpha": (lambda: encoded(plain("LA", (0, 0)), "PNG"), (6, 9), WHITE),
    "webp with alpha": (lambda: encoded(plain("RGBA", (255, 0, 0, 128)), "WEBP", lossless=True), (6, 9), HALF_RED),
    "cmyk jpeg": (lambda: encoded(plain("CMYK", (0, 255, 255, 0)), "JPEG", quality=100), (6, 9), RED),
    "cmyk tiff": (lambda: encoded(plain("CMYK", (0, 255, 255, 0)), "TIFF"), (6, 9), RED),
    "progressive jpeg": (lambda: encoded(plain(), "JPEG", progressive=True, quality=100, subsampling=0), (6, 9), RED),
    "lzw tiff": (lambda: encoded(plain(), "TIFF", compression="tiff_lzw"), (6, 9), RED),
    "deflate tiff": (lambda: encoded(plain(), "TIFF", compression="tiff_deflate"), (6, 9), RED),
    "bmp": (lambda: encoded(plain(), "BMP"), (6, 9), RED),
    "animated gif": (lambda: frames("GIF"), (6, 9), RED),
    "animated png": (lambda: frames("PNG"), (6, 9), RED),
    "animated webp": (
        lambda: encoded(plain(), "WEBP", save_all=True, append_images=[plain(colour=0)], lossless=True),
        (6, 9),
        RED,
    ),
    "tiff of many pages": (lambda: frames("TIFF"), (6, 9), RED),
    "1 x 65535": (lambda: png(1, 65535, 8, 0, zeros(2 * 65535)), (65535, 1), (0, 0, 0)),
    "65535 x 1": (lambda: png(65535, 1, 8, 0, zeros(65536)), (1, 65535), (0, 0, 0)),
    "rubbish after the end": (lambda: encoded(plain(), "PNG") + b"<?php exit; ?>" * 100, (6, 9), RED),
}

REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", "an empty file"),
    "one byte": (lambda: b"\xff", "no known image format"),
    "text": (lambda: b"hello\n" * 100, "no known image format"),
    "html": (lambda: b"<!doctype html><title>404</title>", "no known image format"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', "no known image format"),
    "postscript": (lambda: encoded(plain(), "EPS"), "no known image format"),
    "pdf": (lambda: encoded(plain(), "PDF"), "no known image format"),
    "netpbm": (lambda: encoded(plain(), "PPM"), "no known image format"),
    "icon": (lambda: encoded(plain(), "ICO"), "no known image format"),
    "144 megapixels in 17 KB": (lambda: png(12000, 12000, 1, 0, zeros(12000 * 1501)), "12000 x 12000 pixels"),
    "4 gigapixels": (lambda: png(65535, 65535, 8, 0, zeros(100)), "far more than 50 megapixels"),
    "gif of 4 gigapixels": (
        lambda: encoded(plain(), "GIF")[:6] + b"\xff\xff\xff\xff" + encoded(plain(), "GIF")[10:],
        "far more than 50 megapixels",
    ),
    "webp that promises 268 megapixels": (
        lambda: (
            b"RIFF\x2e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0"
            + encoded(plain(), "WEBP", lossless=True)[12:]
        ),
        "far more than 50 megapixels",
    ),
    "0 pixels wide": (lambda: png(0, 5, 8, 0, zeros(5)), "no known image format"),
    "text chunk bomb": (lambda: png(1, 1, 8, 0, zeros(2), (b"zTXt", b"k\0\0" + zeros(80 << 20))), "damaged content"),
    "colour profile bomb": (
        lambda: png(1, 1, 8, 0, zeros(2), (b"iCCP", b"k\0\0" + zeros(80 << 20))),
        "damaged content",
    ),
    "float tiff": (lambda: encoded(plain("F", 0.5), "TIFF"), "samples of mode F"),
    "tiff of 32 bits": (lambda: encoded(plain("I", 5), "TIFF"), "samples of mode I"),
    "half a jpeg": (
        lambda: encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900],
        "damaged content (OSError: image file is truncated",
    ),
    "half a png": (lambda: encoded(Image.effect_noise((64, 64), 90), "PNG")[:900], "damaged content"),
    "half a webp": (lambda: encoded(Image.effect_noise((64, 64), 90), "WEBP")[:300], "damaged content (OSError"),
    "half a tiff": (
        lambda: encoded(Image.effect_noise((64, 64), 90), "TIFF")[:900],
        "damaged content (OSError: image file is truncated",
    ),
    "half a bmp": (lambda: encoded(Image.effect_noise((64, 64), 90), "BMP")[:1500], "damaged content"),
    "png with a wrong checksum": (lambda: flipped(encoded(plain(), "PNG"), 30), "no known image format"),
    "png without pixels": (lambda: png(500, 500, 8, 2, zeros(10)), "damaged content"),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.reliability(10)
def test_reads(name: str, tmp_path: Path):
    make, (height, width), colour = READS[name]
    path = write(tmp_path, make())
    image = read_image(path)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert np.abs(image[0, 0].astype(int) - colour).max() <= 1
    assert check_image(path) == (width, height)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.reliability(10)
def test_refuses(name: str, tmp_path: Path):
    make, reason = REFUSED[name]
    path = write(tmp_path, make())
    Image.init()  # loads Pillow's readers once
    before = fingerprint(path)
    with counted() as work, pytest.raises(DataError) as caught:
        read_image(path)
    assert work.calls < 5000
    assert work.pixels <= 500 * 500, "much is decoded of what is refused"
    assert str(path) in caught.value.expected
    assert reason in caught.value.received
    assert caught.value.do
    assert fingerprint(path) == before


@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.reliability(10)
def test_orientation_is_undone(orientation: int, form: str, tmp_path: Path):
    """A camera may store the image `upright` in eight ways: all must be read as `upright`."""
    options: dict[str, Any] = {"lossless": True} if form == "WEBP" else {}
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16] = RED
    stored = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    turned = upright.swapaxes(0, 1)
    stored |= {5: turned, 6: turned[::-1], 7: turned[::-1, ::-1], 8: turned[:, ::-1]}
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = write(
        tmp_path, encoded(Image.fromarray(np.ascontiguousarray(stored[orientation])), form, exif=exif, **options)
    )
    np.testing.assert_array_equal(read_image(path), upright)
    assert check_image(path) == (32, 16)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "picture.jpg"  # the content decides, not the suffix
    path.write_bytes(data)
    return path


def fingerprint(path: Path) -> tuple[str, int]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


def special_fifo(path: Path) -> None:
    os.mkfifo(path)


def special_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (special_fifo, "a pipe or a device"),
        (special_socket, "No such device or address"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe or a device"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("nowhere.jpg"), "No such file or directory"),
        (Path.mkdir, "Is a directory"),
        (lambda path: None, "No such file or directory"),
    ],
    ids=["fifo", "socket", "device", "loop", "dangling", "folder", "absent"],
)
@pytest.mark.reliability(10)
def test_a_path_that_is_not_a_regular_file_is_refused_at_once(
    make: Callable[[Path], None], received: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # a socket's path has to be short
    path = Path("picture.jpg")
    make(path)
    for look in (read_image, check_image):
        with pytest.raises(DataError) as caught:
            look(path)
        assert received in caught.value.received


@pytest.mark.reliability(10)
def test_a_name_with_a_zero_byte_is_refused():
    with pytest.raises(DataError, match="null byte"):
        read_image(Path("a\0b.jpg"))


@pytest.mark.parametrize(
    "name",
    [
        "-rf.jpg",
        "naïve 猫.jpg",
        "a\nb.jpg",
        "\x1b[31mred.jpg",
        "x" * 200 + ".jpg",
        os.fsdecode(b"\xff\xfe.jpg"),
        "'; drop.jpg",
    ],
)
@pytest.mark.reliability(10)
def test_odd_names_read_and_are_shown_on_one_printable_line(name: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(READS["rgb"][0]())
    assert read_image(path).shape == (6, 9, 3)
    path.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert caught.value.expected.isprintable()
    assert caught.value.expected.encode()
    assert shown("plain name.jpg") in "plain name.jpg"


@pytest.mark.reliability(10)
def test_a_linked_image_reads(tmp_path: Path):
    target = write(tmp_path, READS["rgb"][0]())
    (tmp_path / "link.jpg").symlink_to(target)
    assert read_image(tmp_path / "link.jpg").shape == (6, 9, 3)


def test_a_large_jpeg_is_decoded_small_if_that_is_enough(tmp_path: Path):
    path = write(tmp_path, encoded(plain(size=(1600, 800)), "JPEG"))
    assert read_image(path).shape == (800, 1600, 3)
    assert read_image(path, reduction=Reduction(150)).shape == (200, 400, 3)


@pytest.mark.parametrize("by", ["shorter", "longer"])
@pytest.mark.parametrize("size", [(1001, 750), (775, 582), (1024, 769), (700, 1900), (2100, 650), (97, 64), (66, 9)])
def test_a_jpeg_has_the_same_size_as_an_image_that_is_decoded_in_full(size: tuple[int, int], by: Any, tmp_path: Path):
    path = write(tmp_path, encoded(plain(size=size), "JPEG"))
    for side in (16, 83, 125, 291):
        reduction = Reduction(side, by)
        small, whole = read_image(path, reduction=reduction), read_image(path)
        working_copy = reduced(small, reduction)
        assert working_copy.shape == reduced(whole, reduction).shape
        assert working_copy.shape == (*reversed(reduction.size(size)), 3)
        assert all(map(operator.ge, small.shape, working_copy.shape)), "decoded too small"


def test_open_regular_closes_its_file(tmp_path: Path):
    with open_regular(write(tmp_path, b"x")) as file:
        assert file.read() == b"x"
    assert file.closed


@pytest.mark.slow
def test_the_largest_image_stays_within_its_memory(tmp_path: Path):
    image = Image.new("RGBA", (7071, 7071), (255, 0, 0, 90))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write(tmp_path, encoded(image, "PNG", compress_level=1, exif=exif))
    program = (
        "import resource, sys; from pathlib import Path; from foveate.data.images.decode import read_image\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "read_image(Path(sys.argv[1])); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True, env=dict(os.environ)
    )
    assert int(run.stdout) <= 512 << 10
