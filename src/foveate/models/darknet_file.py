"""Darknet's .weights files: a header, then the arrays of every convolution in the order of the cfg, with no names and no sizes.

So the only signs of a wrong file are its length and what its numbers cannot be; both are checked before anything is
handed out. The layout is that of load_weights_upto and save_weights_upto in AlexeyAB/darknet's src/parser.c.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from foveate import files
from foveate.errors import DataError, UsageError
from foveate.models.yolov4_tiny_layers import Conv

Arrays = dict[str, dict[str, np.ndarray[Any, Any]]]  # by the convolution's name, then as in `Conv.shapes`
VERSIONS = {1: (0, 1, 0), 2: (0, 2, 5)}  # which we write; the last number of Darknet's own is 5, and nobody reads it
COUNTERS = {1: "<i", 2: "<q"}  # of the images seen in training
FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class Weights:
    """What a file holds: the header's version and count of training images, the table that it was read by, and the arrays."""

    version: tuple[int, int, int]
    seen: int
    convs: tuple[Conv, ...]
    arrays: Arrays


def read(path: Path, convs: Sequence[Conv]) -> Weights:
    """Read a file by a table of convolutions, whose heads may be of another size in the file, as for other classes.

    Raises:
        UsageError: no such file.
        DataError: a length that no such network has, or numbers that are none of a network's.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(
            expected="a local Darknet file of weights", received=f"{path}, which is no file", do="download it first"
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
        found = tuple(convs) if size == start + FLOAT.itemsize * _floats(convs) else _resized(convs, size - start)
        if found is None or size < start:
            raise _wrong_length(path, size, convs, form)
        (seen,) = struct.unpack(COUNTERS[form], file.read(start - 12))
        numbers = np.frombuffer(file.read(), FLOAT)
    arrays = _split(numbers, found)
    if wrong := _implausible(arrays, found):
        raise _wrong_length(path, size, convs, form, wrong) if found != tuple(convs) else _damaged(path, wrong)
    return Weights(version, seen, found, arrays)


def write(path: Path, convs: Sequence[Conv], arrays: Arrays, *, seen: int = 0, version: int = 2) -> None:
    """Write a file, whole or not at all. Raises UsageError for a version that is neither 1 nor 2, or a count that it cannot hold."""
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


def check(arrays: Arrays, convs: Sequence[Conv]) -> None:
    """Refuse arrays that are not of this table. Raises UsageError."""
    wanted = {(conv.name, name): shape for conv in convs for name, shape in conv.shapes.items()}
    given = {(conv, name): np.shape(array) for conv, named in arrays.items() for name, array in named.items()}
    if odd := sorted(key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key)):
        shown = ", ".join(f"{conv} {name} {given.get((conv, name), 'missing')}" for conv, name in odd[:4])
        wants = ", ".join(f"{conv} {name} {wanted.get((conv, name), 'absent')}" for conv, name in odd[:4])
        raise UsageError(
            expected=wants, received=shown, do="use the arrays of a network with the same classes and anchors"
        )


def _form(version: tuple[int, ...], path: Path) -> int:
    """Return which of the two headers it is. Raises DataError for what no Darknet has written."""
    major, minor, revision = version
    if not (0 <= major < 1000 and 0 <= minor < 1000 and revision >= 0):
        raise DataError(
            expected="a Darknet file, whose first numbers are a version such as 0.2.5",
            received=f"{path}, which starts with {major}.{minor}.{revision}",
            do="check that it is a .weights file of Darknet's; other formats load with load_weights",
        )
    return 2 if 10 * major + minor >= 2 else 1


def _floats(convs: Sequence[Conv]) -> int:
    return sum(math.prod(shape) for conv in convs for shape in conv.shapes.values())


def _resized(convs: Sequence[Conv], size: int) -> tuple[Conv, ...] | None:
    """Return the table with heads of such a size that it fills that many bytes, all heads by one factor; None where there is none."""
    heads = [conv for conv in convs if not conv.norm]
    common = math.gcd(*(conv.outputs for conv in heads))
    least = {conv: replace(conv, outputs=conv.outputs // common) for conv in heads}
    rest = size - FLOAT.itemsize * (_floats(convs) - _floats(heads))
    times, left = divmod(rest, FLOAT.itemsize * _floats(list(least.values())))
    if left or times < 1:
        return None
    return tuple(replace(conv, outputs=times * least[conv].outputs) if conv in least else conv for conv in convs)


def _split(numbers: np.ndarray[Any, Any], convs: Sequence[Conv]) -> Arrays:
    arrays: Arrays = {}
    place = 0
    for conv in convs:
        arrays[conv.name] = {}
        for name, shape in conv.shapes.items():
            count = math.prod(shape)
            arrays[conv.name][name] = numbers[place : place + count].reshape(shape)
            place += count
    return arrays


def _implausible(arrays: Arrays, convs: Sequence[Conv]) -> str | None:
    """Say what no network's numbers are like; read in the wrong place, kernels would be taken for variances."""
    for conv in convs:
        named = arrays[conv.name]
        if not all(np.isfinite(array).all() for array in named.values()):
            return f"numbers at {conv.name!r} that are not finite"
        if conv.norm and (named["variance"] < 0).any():
            return f"negative variances at {conv.name!r}"
        if not named["kernel"].any():
            return f"nothing but zeros as the kernel of {conv.name!r}"
    return None


def _wrong_length(path: Path, size: int, convs: Sequence[Conv], form: int, wrong: str = "") -> DataError:
    heads = " and ".join(str(conv.outputs) for conv in convs if not conv.norm)
    wanted = 12 + struct.calcsize(COUNTERS[form]) + FLOAT.itemsize * _floats(convs)
    return DataError(
        expected=f"{wanted} bytes, for heads of {heads} outputs, or the length for other heads",
        received=f"{path} with {size} bytes" + (f"; read as one with other heads it has {wrong}" if wrong else ""),
        do="get the file again, or check that it is of yolov4-tiny; nothing was loaded",
    )


def _damaged(path: Path, wrong: str) -> DataError:
    return DataError(
        expected="weights of a trained network",
        received=f"{path} with {wrong}",
        do="get the file again; nothing was loaded",
    )
