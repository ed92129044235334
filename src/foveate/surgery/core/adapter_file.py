"""The adapter file: only the attention of a model, as safetensors with sites, versions and a checksum."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

import foveate
from foveate import mechanisms
from foveate.bind import states
from foveate.bind.weight_layouts import Arrays
from foveate.errors import DataError, FoveateError, UsageError
from foveate.files import write_whole
from foveate.normalisation import Normalisation
from foveate.spec import Mechanism
from foveate.surgery.core.checksums import Checksums

SCHEMA = 1
BLANK = "0" * 64
# The checksum in the header, which is a JSON text inside a JSON text.
CHECKSUM = re.compile(rb'\{\\"sha256\\":\\"([0-9a-f]{64})\\"')
TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}


@dataclass(frozen=True)
class Entry:
    """The attention of one site, as the file describes it."""

    name: str
    channels: int
    mechanism: Mechanism
    start: Any
    replaces: str | None
    """The class of the module that it takes the place of, if it does."""
    context: str | None
    """The name of the site whose map is its context, if it has one."""


@dataclass(frozen=True)
class Adapter:
    """The content of an adapter file.

    `entries` are the sites; `arrays` are their weights under the torch binding's names, such as
    "layer1.0.bn2.conv.weight". `normalisation` is that of the images in training, None where it is unknown. `host` has
    the precision and a checksum of each tensor of the host when it was saved, {} where they are unknown.
    """

    path: Path
    entries: list[Entry]
    arrays: Arrays
    normalisation: Normalisation | None
    host: Checksums

    def check_normalisation(self, stated: Normalisation | None) -> None:
        """Raise UsageError where the host's images are normalised differently from those of the adapter's training."""
        if stated and self.normalisation and stated != self.normalisation:
            raise UsageError(
                expected=f"a host for images of {self.normalisation}, which {self.path} was trained with",
                received=f"a host for images of {stated}",
                do="load the adapter into the host it was trained in",
            )


def write_adapter(
    path: Path,
    attention: Mapping[str, Any],
    normalisation: Normalisation | None = None,
    host: Checksums | None = None,
    replaced: Mapping[str, str] | None = None,
    contexts: Mapping[str, str] | None = None,
    **versions: str,
) -> None:
    """Write bound mechanisms, by the names of their sites; a failure leaves no partial file.

    `normalisation` is that of the model's images, and `host` the checksums of its tensors, where known. `replaced` has
    the classes of modules that attention took the place of, `contexts` the names of contexts. `versions` are those of
    the framework. bfloat16 weights are written as float32, because NumPy has no bfloat16. Raises UsageError without
    attention and for modules that a factory made, DataError where the file cannot be written.
    """
    if not attention:
        raise UsageError(expected="a model with attention", received="a model without", do="attach(model, ...) first")
    sites = []
    arrays: Arrays = {}
    for name, module in attention.items():
        if not states.is_bound(module):
            raise UsageError(
                expected="mechanisms of the catalogue, which an adapter can name",
                received=f"a {type(module).__name__} at {name!r}",
                do="save model.state_dict() instead",
            )
        sites.append(
            {
                **described(name, module),
                "replaces": (replaced or {}).get(name),
                "context": (contexts or {}).get(name),
            }
        )
        arrays |= {f"{name}.{key}": np.asarray(value, order="C") for key, value in states.read(module).items()}
    images = normalisation and normalisation.to_dict()
    head = {
        "sha256": BLANK,
        "schema": SCHEMA,
        "foveate": foveate.__version__,
        **versions,
        "normalisation": images,
        "host": host or {},
        "sites": sites,
    }
    text = safetensors.numpy.save(arrays, {"foveate": json.dumps(head, separators=(",", ":"))})
    text = CHECKSUM.sub(checksum_text(hashlib.sha256(text).hexdigest()), text, count=1)
    try:
        write_whole(path, text)
    except OSError as error:
        raise DataError(
            expected="a path that can be written", received=f"{path}: {error.strerror or error}", do="check the path"
        ) from error


def described(name: str, module: Any) -> dict[str, Any]:
    """Return the description, in an adapter file, of the bound mechanism at a site of that name."""
    kind = mechanisms.describe(module.mechanism)
    return {"name": name, "channels": module.channels, **kind, "start": module.start}


def read_adapter(path: Path) -> Adapter:
    """Read an adapter file. Raises DataError where it cannot be read, and errors as `parse_adapter`."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(
            expected="an adapter file", received=f"{path}: {error.strerror or error}", do="check the path"
        ) from error
    return parse_adapter(text, path)


def parse_adapter(text: bytes, path: Path) -> Adapter:
    """Check and parse the content of an adapter file; the path is for the messages.

    Raises DataError for a damaged file or another kind of file, and UsageError for an unknown mechanism or option.
    """
    header = text[8 : 8 + int.from_bytes(text[:8], "little")]
    found = CHECKSUM.findall(header)
    blank = CHECKSUM.sub(checksum_text(BLANK), text, count=1)
    if len(found) != 1 or found[0].decode() != hashlib.sha256(blank).hexdigest():
        raise damaged(path, "its sha256 differs from the one it states" if found else "it states no sha256")
    try:
        head = json.loads(json.loads(header)["__metadata__"]["foveate"])
        if head["schema"] != SCHEMA:
            raise DataError(
                expected=f"an adapter of schema {SCHEMA}",
                received=f"{path} of schema {head['schema']}, written by foveate {head['foveate']}",
                do="update foveate",
            )
        entries = [_entry(**site) for site in head["sites"]]
        if not entries or len({entry.name for entry in entries}) != len(entries):
            raise damaged(path, "it has no sites, or two sites of one name")
        arrays = {name: _array(**tensor) for name, tensor in safetensors.deserialize(text)}
        images = head.get("normalisation")
        host = {str(name): (str(dtype), int(value)) for name, (dtype, value) in head.get("host", {}).items()}
        return Adapter(path, entries, arrays, None if images is None else Normalisation.from_dict(images, path), host)
    except FoveateError:
        raise
    except Exception as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def checksum_text(digest: str) -> bytes:
    """Return the header text of a checksum, as a replacement for `CHECKSUM.sub`."""
    return rb'{\\"sha256\\":\\"' + digest.encode() + rb'\\"'


def damaged(path: Path, what: str) -> DataError:
    """Return the error for a file whose content is wrong."""
    return DataError(
        expected="an undamaged adapter", received=f"{path}: {what}", do="save the adapter or download the file again"
    )


def _entry(name: str, channels: int, start: str, replaces: Any = None, context: Any = None, **mechanism: Any) -> Entry:
    names = (name and str(name) for name in (replaces, context))
    return Entry(str(name), int(channels), mechanisms.restore(**mechanism), str(start), *names)


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray[Any, Any]:
    values = np.frombuffer(data, TYPES[dtype])
    if dtype == "BF16":  # the upper half of a float32
        values = (values.astype("<u4") << 16).view("<f4")
    return values.reshape(shape)
