"""Read one image file safely; the DataError for an unreadable file names the file."""

import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from foveate.data.images.reduction import Reduction
from foveate.errors import DataError, counted, missing_extra

try:
    from PIL import ExifTags, Image
except ImportError:
    raise missing_extra("pillow", "study") from None

__all__ = [
    "MAX_PIXELS",
    "QUARTER_TURNS",
    "SUFFIXES",
    "Greys",
    "check_image",
    "check_turned_image",
    "chosen_greys",
    "grey_range",
    "open_regular",
    "read_image",
    "reduced",
    "resized",
    "shown",
    "to_rgb",
    "walk",
]

Greys: TypeAlias = tuple[int, int]
"""The lowest and the highest value of 16-bit grey images; they become 0 and 255 in every image of a data set."""

MAX_PIXELS = 50_000_000
_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")  # MPO: JPEG with more images after the first
SUFFIXES = frozenset({*_JPEG, ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
_MODES = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LA", "PA", "RGBA", "RGBX", *_GREY_16)
QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(
    path: str | os.PathLike[str], *, reduction: Reduction | None = None, greys: Greys | None = None
) -> NDArray[np.uint8]:
    """Read the first frame as RGB, uint8 (H, W, 3), rotated as its EXIF orientation says.

    Transparent parts become white; 16-bit greys from the lowest to the highest of `greys` become 0 to 255, and without
    `greys` their upper 8 bits are kept. With a `reduction`, a large JPEG is decoded at the smallest fraction (1/2, 1/4,
    1/8) that is large enough for the reduction and gives it the same size; `reduced` then reduces it.

    Raises:
        DataError: the file cannot be read, is not an image, or is larger than `MAX_PIXELS`.
    """
    rgb, orientation = _decode(Path(path), reduction, greys)
    if orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    return np.asarray(rgb)


def check_image(path: Path) -> tuple[int, int]:
    """Read only the header; return (width, height) as displayed. Raises DataError as `read_image` does."""
    return check_turned_image(path)[0]


def check_turned_image(path: Path) -> tuple[tuple[int, int], int]:
    """Read only the header; return (width, height) as displayed, and the EXIF orientation, 1 to 8.

    Raises DataError as `read_image` does.
    """
    with _opened(path) as image:
        (width, height), orientation = image.size, _orientation(image)
        return ((height, width) if orientation in QUARTER_TURNS else (width, height)), orientation


def grey_range(paths: Iterable[Path]) -> tuple[Greys | None, int]:
    """Return the range of the 16-bit grey images among some files, None without any, and how many they are.

    Raises DataError as `read_image` does.
    """
    lows, highs = [], []
    for path in paths:
        if path.suffix.lower() in _JPEG:
            continue
        with _opened(path) as image:
            if image.mode in _GREY_16:
                low, high = np.asarray(image).min(), np.asarray(image).max()
                lows.append(int(low))
                highs.append(int(high))
    return ((min(lows), max(highs)) if lows else None), len(lows)


def chosen_greys(paths: Iterable[Path], given: Greys | None) -> tuple[Greys | None, list[str]]:
    """Return the range for the 16-bit grey images among some files, the given one or their own, and a note on it."""
    own, count = grey_range(paths)
    if own is None:
        return given, []
    low, high = given or own
    note = f"{counted(count, 'grey image')} of 16 bits: {low} to {high} become 0 to 255 in every image"
    return (low, high), [note if own == (low, high) else f"{note}, as in training; these hold {own[0]} to {own[1]}"]


def to_rgb(image: Image.Image, greys: Greys | None = None) -> Image.Image:
    """Return an image as RGB of 8 bits, as `read_image` describes."""
    if image.mode in _GREY_16:
        pixels = np.asarray(image)
        if greys is None:
            return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")
        low, high = greys
        shares = (np.clip(pixels, low, high) - np.float32(low)) / max(1, high - low)
        return Image.fromarray(np.rint(255 * shares).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    rgb = Image.new("RGB", image.size, "white")
    rgb.paste(rgba, mask=rgba.getchannel("A"))
    return rgb


def resized(
    image: NDArray[np.uint8], box: tuple[float, float, float, float], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Resample the `box` (left, top, right, bottom) of an RGB image to `size` (width, height), with antialiasing."""
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, box=box))


def reduced(image: NDArray[np.uint8], reduction: Reduction) -> NDArray[np.uint8]:
    """Return the working copy of an image (H, W, 3): the middle that is kept of it, reduced."""
    height, width = image.shape[:2]
    kept, size = reduction.kept((width, height)), reduction.size((width, height))
    if size == (width, height):
        return image
    left, top = (width - kept[0]) / 2, (height - kept[1]) / 2
    return resized(image, (left, top, left + kept[0], top + kept[1]), size)


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file that is not empty; raise DataError for a pipe, a device or an empty file, without waiting."""
    try:
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115  (closed by the `with` below)
    except (OSError, ValueError) as error:
        raise _unreadable(
            path, getattr(error, "strerror", None) or str(error), "check that the file exists and may be read"
        ) from None
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _unreadable(path, "a pipe or a device", "remove it from the data folder")
        if status.st_size == 0:
            raise _unreadable(path, "an empty file", "remove it, or copy it again from its source")
        yield file


def walk(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folder and every folder below it, each with the names of its files; nothing without the folder.

    Links to folders are not followed, as they may form a loop. Raises OSError for a folder that cannot be read.
    """

    def stop(error: OSError) -> None:
        raise error

    if not top.is_dir():
        return
    for place, inner, names in os.walk(top, onerror=stop):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__")))
        yield Path(place), names


def shown(path: Path | str) -> str:
    """Return the name of a file on one line, with unprintable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the writer of a FIFO."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open an image of acceptable size and mode; every error inside, also of decoding, becomes a DataError."""
    Image.init()  # Pillow loads its readers late; it knows the names of formats only afterwards
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about damaged metadata and large images; both are checked here
        try:
            with Image.open(file, formats=_FORMATS) as image:
                _check(path, image)
                yield image
        except DataError:
            raise
        # Pillow's decoders raise almost any exception for damaged files: SyntaxError, struct.error, KeyError, ...
        except Exception as error:
            raise _unreadable(
                path,
                _reason(error),
                "remove the file, or save it again, smaller where it is very large, as PNG or JPEG",
            ) from None


def _check(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _unreadable(
            path, f"{width} x {height} pixels", f"make it smaller: the limit is {MAX_PIXELS // 1_000_000} megapixels"
        )
    if width * height == 0:
        raise _unreadable(path, "an image without pixels", "remove the file")
    if image.mode not in _MODES:
        raise _unreadable(
            path,
            f"samples of mode {image.mode}",
            "save it with whole numbers of 8 or 16 bits, all images with one scale",
        )


def _decode(path: Path, reduction: Reduction | None, greys: Greys | None) -> tuple[Image.Image, int]:
    """Return the RGB image as stored, and its EXIF orientation."""
    with _opened(path) as image:
        orientation = _orientation(image)
        if reduction is not None and (scale := reduction.decodes_at(image.size)) > 1:
            image.draft(None, (image.width // scale, image.height // scale))  # has an effect only on JPEG
        image.load()
        return to_rgb(image, greys), orientation


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; Pillow rotates a TIFF itself, and gives its rotated size."""
    return 1 if image.format == "TIFF" else image.getexif().get(ExifTags.Base.Orientation, 1)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "content of no known image format"
    if isinstance(error, Image.DecompressionBombError):
        return f"far more than {MAX_PIXELS // 1_000_000} megapixels"
    text = shown(str(error)).strip()
    return f"damaged content ({type(error).__name__}{': ' + text[:120] if text else ''})"


def _unreadable(path: Path, received: str, do: str) -> DataError:
    return DataError(expected=f"a readable image in {shown(path)}", received=received, do=do)
