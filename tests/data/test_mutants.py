"""RELIABILITY row 9: damaged images are read or raise DataError with the file's name, within 512 MB and little work."""

import io
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.data.images.decode import MAX_PIXELS, check_image, read_image
from foveate.data.images.reduction import Reduction
from foveate.errors import DataError
from work import counted

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless webp": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "tiff": ("TIFF", {}),
    "lzw tiff": ("TIFF", {"compression": "tiff_lzw"}),
}

CALLS, CALLS_A_BYTE = 20_000, 10  # allowed calls: for each file, and for each of its bytes


@pytest.mark.reliability(9)
def test_2000_mutants(tmp_path: Path, tried: Any):
    read, refused = survive(tmp_path, 2000, seed=0)
    assert read > 300, "the mutations leave hardly anything readable, so they test little"
    assert refused > 300, "the mutations damage hardly anything, so they test little"
    tried(read + refused)


@pytest.mark.slow
@pytest.mark.reliability(9)
def test_20000_mutants(tmp_path: Path, tried: Any):
    tried(sum(survive(tmp_path, 20_000, seed=1)))


def survive(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Read `count` mutants; return how many were read and how many were refused."""
    rng = np.random.default_rng(seed)
    seeds = list(pictures().values())
    before, read = peak(), 0
    for k in range(count):
        path = folder / f"mutant{k}.jpg"
        damaged = mutant(rng, seeds)
        path.write_bytes(damaged)
        with counted() as work:
            try:
                check_image(path)
                image = read_image(path, reduction=Reduction(24) if k % 2 else None)
                assert image.ndim == 3
                read += 1
            except DataError as error:
                assert path.name in error.expected  # noqa: PT017 - a loop over thousands, where most may do either
        assert work.pixels <= MAX_PIXELS, path
        assert work.calls <= CALLS + CALLS_A_BYTE * len(damaged), path
        path.unlink()
    assert peak() - before <= 512 << 10
    return read, count - read


def pictures() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a camera"
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).resize((48, 40))
    encoded = {}
    for name, (kind, options) in KINDS.items():
        file = io.BytesIO()
        picture.save(file, kind, **options, **({} if kind in ("BMP", "GIF") else {"exif": exif}))
        encoded[name] = file.getvalue()
    return encoded


def mutant(rng: np.random.Generator, seeds: list[bytes]) -> bytes:
    data = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 4)):
        at, size = rng.integers(len(data)), rng.integers(1, 40)
        match rng.integers(6):
            case 0:
                for place in rng.integers(len(data), size=rng.integers(1, 8)):
                    data[place] = rng.integers(256)
            case 1:
                del data[max(1, at) :]
            case 2:
                data[rng.integers(min(64, len(data)))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)])
            case 3:
                other = seeds[rng.integers(len(seeds))]
                start = rng.integers(len(other))
                data[at : at + size] = other[start : start + size]
            case 4:
                data[at:at] = data[rng.integers(len(data)) :][:size]
            case _:
                data[at : at + 4] = rng.choice(
                    [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]
                )
    return bytes(data)


def peak() -> int:
    """Return the highest memory use of this process in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
