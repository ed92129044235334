"""Adapters of Keras models: saving the attention, and attaching what a file holds. The files are those of PyTorch models."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from foveate.normalisation import carry, normalisation_of
from foveate.surgery.core.adapter_file import read_adapter, write_adapter
from foveate.surgery.core.adapter_sites import find, place, restore
from foveate.surgery.keras.attaching import attached, choose, insert, make_layers
from foveate.surgery.keras.graph import read


def save_adapter(model: Any, path: str | os.PathLike[str]) -> None:
    """Write the attention of the model to a safetensors file, all or nothing, for this host or the same one in PyTorch.

    The file states `model.normalisation`, where the model carries one. Raises UsageError without attention, and DataError where the file
    cannot be written.
    """
    write_adapter(Path(path), attached(model), normalisation_of(model), keras=keras.__version__, backend=keras.backend.backend())


def load_adapter(model: Any, path: str | os.PathLike[str], *, sites: Mapping[str, str] | None = None, example: Any = None) -> Any:
    """Return a new model, as `attach` does, with the attention that an adapter holds and its weights.

    `sites` maps the adapter's site names to the model's layers, where they differ, as those of a PyTorch model do. `example` is the
    shape of the input where the model leaves it open. Raises DataError for a file that is damaged or no adapter, and UsageError for a
    model or a map that does not fit, or a model that carries another normalisation than the file states; one that carries none takes
    the file's.
    """
    adapter = read_adapter(Path(path))
    adapter.check_normalisation(normalisation_of(model))
    placed = place(adapter, sites)
    graph = read(model, example)
    calls = find(placed, graph.trace, lambda where: choose(graph, where))
    layers = make_layers(model, graph, calls, lambda call: (placed[call.name].mechanism, placed[call.name].start))
    dressed = insert(model, graph, restore(adapter, placed, calls, lambda entry, call: layers[call.name]))
    if adapter.normalisation is not None:
        carry(dressed, adapter.normalisation)
    return dressed
