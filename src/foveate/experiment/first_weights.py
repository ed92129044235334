"""The first weights of a model: which file they come from, how its images were normalised, and how they are loaded."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from foveate.errors import UsageError
from foveate.experiment.entries import own_names
from foveate.experiment.options import Resolved
from foveate.models.darknet_file import is_darknet
from foveate.models.hosts import published_normalisation
from foveate.models.own import build_own
from foveate.models.pretrained import weights_file
from foveate.models.weights import has_attention, stated_normalisation
from foveate.normalisation import Normalisation, normalisation_of
from foveate.user_code import code_digest, is_own

logger = logging.getLogger("foveate")


def first_weights(options: Resolved) -> Path | None:
    """Return the file of the first weights, named by the options or a pretrained model; None for random weights.

    Raises UsageError if the package of a pretrained model is missing.
    """
    return options.weights or weights_file(options.model)


def first_normalisation(options: Resolved) -> Normalisation | None:
    """Return how images were normalised for the first weights, None for random weights; an assumption is logged.

    The user's own network may have a `normalisation`. Raises UsageError or DataError for a file without weights, or an
    unknown model.
    """
    if not options.what.NORMALISES:
        return None
    path, name = first_weights(options), options.model
    if path is None:
        return _own_normalisation(options) if is_own(name) else None
    found = stated_normalisation(path)
    if found is None:
        found = _own_normalisation(options) if is_own(name) else published_normalisation(name)
        assumed = found or "the normalisation of a model trained here from scratch"
        logger.warning("%s does not state how its images were normalised; assumed: %s", path, assumed)
    return found


def _own_normalisation(options: Resolved) -> Normalisation | None:
    """Build the user's network to read its normalisation; None if it cannot be built yet, and is checked later."""
    try:
        return normalisation_of(build_own(options.model, 2, options.channels or 3, options.imgsz or 224))
    except UsageError:
        return None


def load_first(model: nn.Module, options: Resolved, data: Mapping[str, Any]) -> None:
    """Load the weights that the options name, except heads that were trained for other classes.

    Raises UsageError or DataError for weights that do not fit the model, which is then unchanged.
    """
    if (path := first_weights(options)) is not None:
        options.what.load(model, path, list(map(str, data["classes"])))


def bring_attention(options: Resolved) -> bool:
    """Return whether the weights that the options name include attention.

    Raises as `load_first`.
    """
    return options.weights is not None and not is_darknet(options.weights) and has_attention(options.weights)


def digests(options: Resolved) -> dict[str, str | None]:
    """Return the sha256 of the file of the first weights, and of the user's own code; None where there is none."""
    return {"weights_sha256": _weights_digest(options), **code_digests(options)}


def code_digests(options: Resolved) -> dict[str, str | None]:
    """Return the sha256 of the file of the user's own model, and that of the files of the user's own mechanisms."""
    parts = [str(code_digest(name, "mechanism")) for name in own_names(options.attention)]
    attention = hashlib.sha256("".join(parts).encode()).hexdigest() if parts else None
    return {"model_sha256": code_digest(options.model), "attention_sha256": attention}


def _weights_digest(options: Resolved) -> str | None:
    path = first_weights(options)
    if path is None or not path.is_file():  # building the model reports what is wrong with it
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
