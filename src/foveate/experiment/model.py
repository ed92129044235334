"""Build the host from a seed, load its first weights, and attach the attention of an arm."""

import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from foveate.errors import UsageError
from foveate.experiment.arms import Arm, Control, Widths
from foveate.experiment.first_weights import bring_attention, first_weights, load_first
from foveate.experiment.options import Resolved
from foveate.models.classifier_heads import all_but_heads
from foveate.normalisation import Normalisation, normalisation_of, set_normalisation
from foveate.surgery import attach
from foveate.user_code import is_own, short_name

logger = logging.getLogger("foveate")


def build_model(
    options: Resolved, arm: Arm, seed: int, described: Mapping[str, Any], widths: Mapping[str, Widths]
) -> nn.Module:
    """Build the host from a seed and attach the arm; with `freeze`, only the attached layers and the heads learn.

    The weights of a model with attention are loaded as a whole, and its attention must be the arm's. Raises UsageError
    or DataError for weights that do not fit.
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
    """Build the host for the described data; its random weights depend only on the model and the seed.

    `described` comes from `describe` or data.json. Torch's random state does not change. A `blank` host does not get
    the weights that the options name.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = options.what.build(options.model, described)
    seen, own = Normalisation.from_dict(described.get("normalisation"), "data.json"), normalisation_of(model)
    if own not in (None, seen) and first_weights(options) is None:
        raise UsageError(
            expected=f"images with {own}, as {options.model} states",
            received=f"images with {seen}",
            do="give the network no normalisation, or one that does not depend on the number of classes",
        )
    if not blank:
        load_first(model, options, described)
    set_normalisation(model, seen)
    return model


def example_of(data: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return the shape of one image, from the data's description."""
    return 1, data["channels"], data["size"], data["size"]


def attach_arm(model: nn.Module, arm: Arm, seed: int, example: tuple[int, ...], widths: Mapping[str, Widths]) -> Any:
    """Attach the arm's mechanism or control and return the plan; None for the plain host.

    The first weights of the attention depend on the seed and the arm; both starts of a mechanism share them.
    """
    if arm.mechanism == "none":
        return None
    drawn_by = f"{seed}/{short_name(arm.mechanism)}/{arm.where}/{sorted(arm.options.items())}"
    key = hashlib.sha256(drawn_by.encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(key[:7]))
        if arm.mechanism == "control":
            wide = widths[arm.where]
            return attach(model, lambda channels: Control(channels, wide[channels]), example=example, **arm.arguments)
        return attach(model, arm.mechanism, example=example, **arm.arguments)


def freeze(model: nn.Module, options: Resolved, classes: int) -> None:
    """Let only the attached layers and the heads learn; the host's batch norms keep their statistics.

    Raises UsageError for a model without a head.
    """
    all_but_heads(model, classes).set_frozen(True)
    if first_weights(options) is None and not is_own(options.model):
        logger.warning("--freeze without --weights: the host keeps its random weights and has learnt nothing")
