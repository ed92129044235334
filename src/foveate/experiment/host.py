"""The host: built from a seed, given its first weights, and the attention of an arm attached to it."""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from foveate.errors import UsageError
from foveate.experiment.arms import Arm, Control, Widths
from foveate.experiment.options import Resolved
from foveate.experiment.weights import bring_attention, first_weights, load_first
from foveate.models.heads import all_but_heads
from foveate.models.own import is_own
from foveate.normalisation import Normalisation, normalisation_of, set_normalisation
from foveate.surgery import attach

logger = logging.getLogger("foveate")


def build_model(
    options: Resolved, arm: Arm, seed: int, described: Mapping[str, Any], widths: Mapping[str, Widths]
) -> nn.Module:
    """Build the host of a seed with what an arm attaches; where `freeze` asks for it, only that and the heads may learn.

    Weights of a model with attention are loaded whole, and the attention must be the arm's. Raises UsageError,
    DataError for weights that do not fit.
    """
    whole = bring_attention(options)
    model = build_host(options, described, seed, blank=True)
    if not whole:
        load_first(model, options, described)
    attach_arm(model, arm, seed, example_of(described), widths)
    if whole:
        load_first(model, options, described)
    if options.freeze:
        freeze(model, options, len(described["classes"]))
    return model


def build_host(options: Resolved, described: Mapping[str, Any], seed: int, *, blank: bool = False) -> nn.Module:
    """Build the host for data as `describe` or data.json describes them; its random weights follow from the model and the seed alone.

    Torch's random state is left as it was. A `blank` one is not given the weights that the options name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = options.what.build(options.model, described)
    seen, own = Normalisation.from_dict(described.get("normalisation"), "data.json"), normalisation_of(model)
    if own not in (None, seen) and first_weights(options) is None:
        raise UsageError(
            expected=f"images of {own}, as {options.model} says",
            received=f"images of {seen}",
            do="give the network no normalisation, or one that does not depend on the number of classes",
        )
    if not blank:
        load_first(model, options, described)
    set_normalisation(model, seen)
    return model


def example_of(data: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return the shape of one image of data as they describe themselves."""
    return 1, data["channels"], data["size"], data["size"]


def attach_arm(model: nn.Module, arm: Arm, seed: int, example: tuple[int, ...], widths: Mapping[str, Widths]) -> Any:
    """Attach what the arm is about and return the plan, None for the plain host.

    The first weights of the attention follow from the seed and the arm; both starts of one mechanism share them.
    """
    if arm.mechanism == "none":
        return None
    key = hashlib.sha256(f"{seed}/{arm.mechanism}/{arm.where}/{sorted(arm.options.items())}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(key[:7]))
        if arm.mechanism == "control":
            wide = widths[arm.where]
            return attach(model, lambda channels: Control(channels, wide[channels]), arm.where, example=example)
        return attach(model, arm.mechanism, arm.where, example=example, start=arm.start or "identity", **arm.options)


def freeze(model: nn.Module, options: Resolved, classes: int) -> None:
    """Let only what is attached and the heads learn; the host's batch norms keep their statistics. Raises UsageError without a head."""
    all_but_heads(model, classes).set_frozen(True)
    if first_weights(options) is None and not is_own(options.model):
        logger.warning("--freeze without --weights: the host stays as it was drawn, and has learnt nothing")
