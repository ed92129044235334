"""Adapters of PyTorch models: saving the attention, and attaching what a file holds."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from foveate.bind.torch import attention
from foveate.normalisation import carry, normalisation_of
from foveate.surgery.core.adapter_file import read_adapter, write_adapter
from foveate.surgery.core.adapter_sites import find, place, restore
from foveate.surgery.core.plans import Plan
from foveate.surgery.torch.attaching import install
from foveate.surgery.torch.child import attached
from foveate.surgery.torch.example import Example, probe
from foveate.surgery.torch.prepare import Prepared, build, check_host, count_host
from foveate.surgery.torch.sites import choose
from foveate.torch_utils.names import CHILD, plain_name, unwrapped
from foveate.torch_utils.unchanged import random_state


def save_adapter(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the attention of the model to a safetensors file, all or nothing; the model may be compiled or wrapped meanwhile.

    The file states `model.normalisation`, where the model carries one.
    Raises UsageError without attention, or for a factory's, and DataError where the file cannot be written.
    """
    found = {plain_name(name): getattr(site, CHILD) for name, site in attached(unwrapped(model)).items()}
    write_adapter(Path(path), found, normalisation_of(unwrapped(model)), torch=torch.__version__)


@torch.inference_mode(False)
def load_adapter(
    model: nn.Module, path: str | os.PathLike[str], *, sites: Mapping[str, str] | None = None, example: Example = None
) -> Plan:
    """Attach the attention an adapter holds, with its weights; the model then computes what the saved one did.

    `sites` maps the adapter's site names to the model's, where they differ, as those of a Keras model do. Everything is checked before
    the model changes. Raises DataError for a file that is damaged or no adapter, and UsageError for a model or a map that does not fit, or
    a model that carries another normalisation than the file states; one that carries none takes the file's.
    """
    adapter = read_adapter(Path(path))
    adapter.check_normalisation(normalisation_of(model))
    placed = place(adapter, sites)
    check_host(model)
    reset = random_state()
    try:
        trace = probe(model, example)
        calls = find(placed, trace, lambda where: choose(trace, dict(model.named_modules()), where))
        made = restore(
            adapter, placed, calls, lambda entry, call: attention(entry.mechanism, entry.channels, start=entry.start, dtype=call.dtype)
        )
        chosen, attentions = build(model, trace, calls, lambda call: made[call.name])
        kinds = list(dict.fromkeys(entry.mechanism for entry in adapter.entries))
        label = " + ".join(dict.fromkeys(kind.name for kind in kinds))
        options = kinds[0].options() if len(kinds) == 1 else {}
        plan = Plan(label, options, adapter.entries[0].start, adapter.path.name, count_host(model), chosen)
        install(model, Prepared(plan, trace, attentions))
        if adapter.normalisation is not None:
            carry(model, adapter.normalisation)
    finally:
        reset()
    return plan
