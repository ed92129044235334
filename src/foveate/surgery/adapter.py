"""Adapters: the attention of a model alone, in a small safetensors file with its plan, versions and a checksum."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

import foveate
from foveate.bind.torch import Attention, attention
from foveate.errors import DataError, FoveateError, UsageError
from foveate.files import write_whole
from foveate.surgery.child import CHILD, attached, plain_name, unwrapped
from foveate.surgery.example import Example, probe
from foveate.surgery.plans import Plan
from foveate.surgery.prepare import Prepared, build, check_host, count_host
from foveate.surgery.probe import random_state
from foveate.surgery.record import Call
from foveate.surgery.sites import choose
from foveate.surgery.torch_attach import install

SCHEMA = 1
BLANK = "0" * 64
# The checksum as it stands in the header, inside a JSON text inside a JSON text.
CHECKSUM = re.compile(rb'\{\\"sha256\\":\\"([0-9a-f]{64})\\"')


def save_adapter(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the attention of the model to a safetensors file, all or nothing; the model may be compiled or wrapped meanwhile.

    Raises UsageError without attention, or for a factory's.
    """
    sites = {plain_name(name): site for name, site in attached(unwrapped(model)).items()}
    if not sites:
        raise UsageError(expected="a model with attention", received="one without", do="attach(model, ...) first")
    tensors: dict[str, Tensor] = {}
    entries = []
    for name, site in sites.items():
        module = getattr(site, CHILD)
        if not isinstance(module, Attention):
            raise UsageError(
                expected="mechanisms of the catalogue, which an adapter can name",
                received=f"a {type(module).__name__} at {name!r}",
                do="save model.state_dict() instead",
            )
        entries.append(
            {
                "name": name,
                "channels": module.channels,
                "mechanism": module.mechanism.name,
                "options": module.mechanism.options(),
                "start": module.start,
            }
        )
        tensors |= {f"{name}.{key}": value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    head = {"sha256": BLANK, "schema": SCHEMA, "foveate": foveate.__version__, "torch": torch.__version__, "sites": entries}
    text = safetensors.torch.save(tensors, {"foveate": json.dumps(head, separators=(",", ":"))})
    _write(Path(path), CHECKSUM.sub(checksum_text(hashlib.sha256(text).hexdigest()), text, count=1))


@torch.inference_mode(False)
def load_adapter(model: nn.Module, path: str | os.PathLike[str], *, example: Example = None) -> Plan:
    """Attach the attention an adapter holds, with its weights; the model then computes what the saved one did.

    Everything is checked before the model changes. Raises DataError for a file that is damaged or no adapter, and UsageError for a
    model that it does not fit.
    """
    path = Path(path)
    entries, tensors = read_adapter(path)
    check_host(model)
    restore = random_state()
    try:
        record = probe(model, example)
        calls = {call.name: call for call in reversed(record.calls)}
        named = {entry["name"]: entry for entry in entries}
        for name in named.keys() - calls.keys():
            raise _misfit(f"a module {name!r} that runs", "a model without it")
        chosen = choose(record, dict(model.named_modules()), lambda name, module, shape: name in named)
        if unlike := named.keys() ^ {call.name for call in chosen}:
            raise _misfit(f"sites {sorted(named)}", f"a model where {sorted(unlike)} cannot be sites")
        sites, attentions = build(model, record, chosen, lambda call: _restore(path, named[call.name], call, tensors))
        if tensors:
            raise _damaged(path, f"weights that belong to no site: {sorted(tensors)[:3]}")
        first = entries[0]
        mixed = any((entry["mechanism"], entry["options"]) != (first["mechanism"], first["options"]) for entry in entries)
        label = " + ".join(dict.fromkeys(entry["mechanism"] for entry in entries))
        plan = Plan(label, {} if mixed else first["options"], first["start"], path.name, count_host(model), sites)
        install(model, Prepared(plan, record, attentions))
    finally:
        restore()
    return plan


def read_adapter(path: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Return the sites and the tensors of an adapter file. Raises DataError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise DataError(expected="an adapter file", received=f"{path}: {error.strerror or error}", do="check the path") from error
    return parse_adapter(text, path)


def parse_adapter(text: bytes, path: Path) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Check and take apart the content of an adapter file; the path is for the messages. Raises DataError."""
    header = text[8 : 8 + int.from_bytes(text[:8], "little")]
    found = CHECKSUM.findall(header)
    blank = CHECKSUM.sub(checksum_text(BLANK), text, count=1)
    if len(found) != 1 or found[0].decode() != hashlib.sha256(blank).hexdigest():
        raise _damaged(path, "a file whose sha256 is not the one it names" if found else "a file that names no sha256")
    try:
        head = json.loads(json.loads(header)["__metadata__"]["foveate"])
        if head["schema"] != SCHEMA:
            raise DataError(
                expected=f"an adapter of schema {SCHEMA}",
                received=f"{path} of schema {head['schema']}, written by foveate {head['foveate']}",
                do="update foveate",
            )
        sites = [_entry(**site) for site in head["sites"]]
        if not sites or len({site["name"] for site in sites}) != len(sites):
            raise _damaged(path, "sites that are none or named twice")
        return sites, safetensors.torch.load(text)
    except DataError:
        raise
    except Exception as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def checksum_text(digest: str) -> bytes:
    """Return a checksum as it stands in the header, as a template for `CHECKSUM.sub`."""
    return rb'{\\"sha256\\":\\"' + digest.encode() + rb'\\"'


def _entry(name: str, channels: int, mechanism: str, start: str, options: dict[str, Any]) -> dict[str, Any]:
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    return {"name": str(name), "channels": int(channels), "mechanism": str(mechanism), "start": str(start), "options": options}


def _restore(path: Path, entry: dict[str, Any], call: Call, tensors: dict[str, Tensor]) -> nn.Module:
    """Build the attention of one site and move its weights out of the tensors into it."""
    channels = (call.shape or (0, 0))[1]
    if channels != entry["channels"]:
        raise _misfit(f"{entry['channels']} channels at {entry['name']!r}", f"a model with {channels} there")
    try:
        module = attention(entry["mechanism"], channels, start=entry["start"], **entry["options"])
        module.load_state_dict({key: tensors.pop(f"{entry['name']}.{key}") for key in module.state_dict()}, strict=True)
    except FoveateError:
        raise
    except Exception as error:
        raise _damaged(path, f"weights of {entry['name']!r} that do not fit: {error}") from error
    return module


def _write(path: Path, text: bytes) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise DataError(expected="a folder to write in", received=f"{path}: {error.strerror or error}", do="check the path") from error


def _damaged(path: Path, what: str) -> DataError:
    return DataError(expected="an undamaged adapter", received=f"{path}: {what}", do="save_adapter it again, or fetch the file again")


def _misfit(expected: str, received: str) -> UsageError:
    return UsageError(expected=expected, received=received, do="load the adapter into the host that it was made for")
