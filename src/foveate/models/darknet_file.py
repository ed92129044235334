"""Darknet's files of weights: a header, then the arrays of every convolution in the order of the cfg.

The files hold no names and no sizes, so a wrong file shows only in its length and in impossible numbers; both are
checked before anything is returned. A file such as yolov4-tiny.conv.29 ends between two layers.
The layout is that of load_weights_upto and save_weights_upto in AlexeyAB/darknet's src/parser.c.
"""

import math
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foveate import files
from foveate.errors import DataError, UsageError
from foveate.models.yolov4_tiny_layers import ConvSpec

Arrays = dict[str, dict[str, np.ndarray[Any, Any]]]  # by the convolution's name, then by the names in `ConvSpec.shapes`
VERSIONS = {1: (0, 1, 0), 2: (0, 2, 5)}  # which we write; Darknet writes 5 as the last number, and no program reads it
COUNTERS = {1: "<i", 2: "<q"}  # of the count of training images
FLOAT = np.dtype("<f4")
_NAMES = re.compile(r"\.weights$|\.conv\.\d+$")


@dataclass(frozen=True)
class Weights:
    """The content of a file: version and count of training images from the header, the table used, and the arrays."""

    version: tuple[int, int, int]
    seen: int
    convs: tuple[ConvSpec, ...]
    arrays: Arrays


def is_darknet(path: Path) -> bool:
    """Return whether a file has a name of Darknet's, such as yolov4-tiny.weights or yolov4-tiny.conv.29."""
    return _NAMES.search(path.name) is not None


def read(path: Path, convs: Sequence[ConvSpec]) -> Weights:
    """Read a file by a table of convolutions, and return the table that the file has.

    Its heads may have another size, as they have for other classes; its first convolution may be for grey images or
    for RGB; and it may end after any layer.

    Raises:
        UsageError: no such file.
        DataError: a length that does not fit the network, or numbers that cannot be weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(
            expected="a local Darknet file of weights", received=f"{path}, which is not a file", do="download it first"
        )
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        header = file.read(12)
        if len(header) < 12:
            raise _wrong_length(path, size, convs, 2)
        version = struct.unpack("<3i", header)
        form = _form(version, path)
        start = 12 + struct.calcsize(COUNTERS[form])
        counter = file.read(start - 12)
        content = file.read()
    found = list(_tables(convs, size - start))
    if not found:
        raise _wrong_length(path, size, convs, form)
    (seen,) = struct.unpack(COUNTERS[form], counter)
    wrong = ""
    for one in found:
        arrays = _split(np.frombuffer(content, FLOAT), one)
        if not (said := _implausible(arrays, one)):
            return Weights(version, seen, one, arrays)
        wrong = wrong or said
    raise _damaged(path, wrong) if tuple(convs) in found else _wrong_length(path, size, convs, form, wrong)


def write(path: Path, convs: Sequence[ConvSpec], arrays: Arrays, *, seen: int = 0, version: int = 2) -> None:
    """Write a file atomically. Raises UsageError for a version other than 1 or 2, or a count that it cannot hold."""
    if version not in VERSIONS:
        raise UsageError(expected="version 1 or 2 of the header", received=repr(version), do="leave version out for 2")
    if isinstance(seen, bool) or not isinstance(seen, int) or not 0 <= seen < 1 << (31 if version == 1 else 63):
        raise UsageError(
            expected=f"seen as a count of images that version {version} can hold",
            received=repr(seen),
            do="use version=2, or seen=0",
        )
    header = struct.pack("<3i", *VERSIONS[version]) + struct.pack(COUNTERS[version], seen)
    content = [np.ascontiguousarray(arrays[conv.name][name], FLOAT).tobytes() for conv in convs for name in conv.shapes]
    files.write_bytes(Path(path), b"".join([header, *content]))


def check(arrays: Arrays, convs: Sequence[ConvSpec]) -> None:
    """Refuse arrays whose names or shapes are not those of the table. Raises UsageError."""
    wanted = {(conv.name, name): shape for conv in convs for name, shape in conv.shapes.items()}
    given = {(conv, name): np.shape(array) for conv, named in arrays.items() for name, array in named.items()}
    if odd := sorted(key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key)):
        shown = ", ".join(f"{conv} {name} {given.get((conv, name), 'missing')}" for conv, name in odd[:4])
        wants = ", ".join(f"{conv} {name} {wanted.get((conv, name), 'absent')}" for conv, name in odd[:4])
        raise UsageError(
            expected=wants, received=shown, do="use the arrays of a network with the same classes and anchors"
        )


def _form(version: tuple[int, ...], path: Path) -> int:
    """Return which of the two headers a file has. Raises DataError for a version that Darknet never wrote."""
    major, minor, revision = version
    if not (0 <= major < 1000 and 0 <= minor < 1000 and revision >= 0):
        raise DataError(
            expected="a Darknet file, whose first numbers are a version such as 0.2.5",
            received=f"{path}, which starts with {major}.{minor}.{revision}",
            do="check that it is a .weights file from Darknet; other formats load with load_weights",
        )
    return 2 if 10 * major + minor >= 2 else 1


def _floats(convs: Sequence[ConvSpec]) -> int:
    return sum(math.prod(shape) for conv in convs for shape in conv.shapes.values())


def _tables(convs: Sequence[ConvSpec], size: int) -> Iterator[tuple[ConvSpec, ...]]:
    """Yield the tables that fill `size` bytes: all layers, then heads of another size, then an end between layers."""
    first, *others = convs
    whole = [(replace(first, inputs=inputs), *others) for inputs in dict.fromkeys((first.inputs, 3, 1))]
    yield from (table for table in whole if size == FLOAT.itemsize * _floats(table))
    for table in whole:
        if (resized := _resized(table, size)) not in (None, table):
            yield resized
    for table in whole:
        count, left = _complete(table, size)
        if not left and 0 < count < len(table):
            yield table[:count]


def _complete(convs: Sequence[ConvSpec], size: int) -> tuple[int, int]:
    """Return how many layers are complete in `size` bytes, and how many bytes are left."""
    for count, conv in enumerate(convs):
        if (needed := FLOAT.itemsize * _floats([conv])) > size:
            return count, size
        size -= needed
    return len(convs), size


def _resized(convs: tuple[ConvSpec, ...], size: int) -> tuple[ConvSpec, ...] | None:
    """Return the table with all heads scaled by one factor so that it fills `size` bytes; None if no factor does."""
    heads = [conv for conv in convs if not conv.norm]
    common = math.gcd(*(conv.outputs for conv in heads))
    least = {conv: replace(conv, outputs=conv.outputs // common) for conv in heads}
    rest = size - FLOAT.itemsize * (_floats(convs) - _floats(heads))
    times, left = divmod(rest, FLOAT.itemsize * _floats(list(least.values())))
    if left or times < 1:
        return None
    return tuple(replace(conv, outputs=times * least[conv].outputs) if conv in least else conv for conv in convs)


def _split(numbers: np.ndarray[Any, Any], convs: Sequence[ConvSpec]) -> Arrays:
    arrays: Arrays = {}
    place = 0
    for conv in convs:
        arrays[conv.name] = {}
        for name, shape in conv.shapes.items():
            count = math.prod(shape)
            arrays[conv.name][name] = numbers[place : place + count].reshape(shape)
            place += count
    return arrays


def _implausible(arrays: Arrays, convs: Sequence[ConvSpec]) -> str | None:
    """Return a phrase for numbers that cannot be weights, such as kernels read in the place of variances; else None."""
    for conv in convs:
        named = arrays[conv.name]
        if not all(np.isfinite(array).all() for array in named.values()):
            return f"numbers at {conv.name!r} that are not finite"
        if conv.norm and (named["variance"] < 0).any():
            return f"negative variances at {conv.name!r}"
        if not named["kernel"].any():
            return f"nothing but zeros as the kernel of {conv.name!r}"
    return None


def _wrong_length(path: Path, size: int, convs: Sequence[ConvSpec], form: int, wrong: str = "") -> DataError:
    heads = " and ".join(str(conv.outputs) for conv in convs if not conv.norm)
    start = 12 + struct.calcsize(COUNTERS[form])
    wanted = start + FLOAT.itemsize * _floats(convs)
    count, left = _complete(convs, size - start)
    if wrong:
        what, do = f"; read with layers of that size it has {wrong}", "check that it belongs to yolov4-tiny"
    elif size <= start:
        what, do = ", which ends in the header or after it", "the file is cut: get it again"
    elif count == len(convs):
        what, do = f", {left} bytes more than all layers have", "check that it belongs to yolov4-tiny"
    else:
        missing = FLOAT.itemsize * _floats([convs[count]]) - left
        what = f", {missing} bytes short of the end of {convs[count].name!r}, convolution {count + 1} of {len(convs)}"
        do = "the file is cut: get it again, or check that it belongs to yolov4-tiny"
    return DataError(
        expected=f"{wanted} bytes, for heads with {heads} outputs; or heads of another size, or an end between layers",
        received=f"{path} with {size} bytes{what}",
        do=f"{do}; nothing was loaded",
    )


def _damaged(path: Path, wrong: str) -> DataError:
    return DataError(
        expected="weights of a trained network",
        received=f"{path} with {wrong}",
        do="get the file again; nothing was loaded",
    )
