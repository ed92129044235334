"""The arms of a study: what is attached where, and the control that has as many parameters but no attention."""

import hashlib
import re
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import BatchOfOneWarning, UsageError
from foveate.experiment.entries import parse
from foveate.experiment.options import ANYWHERE, Resolved
from foveate.mechanisms import get
from foveate.parts import Start
from foveate.surgery import plan
from foveate.user_code import short_name

Widths = dict[int, int]


@dataclass(frozen=True)
class Arm:
    """One arm: the name of a mechanism (or "none", or "control") at a site preset, with its start and options."""

    mechanism: str
    where: str = "host"
    start: Start | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    replace: str | None = None

    @property
    def slug(self) -> str:
        """The arm's name in paths and tables: letters, digits and a few signs, distinct for distinct arms."""
        options = [f"{name}{value}" for name, value in self.options.items()]
        return "__".join(
            _safe("-".join(part))
            for part in ([short_name(self.mechanism), *options, *([self.start] if self.start else [])], [self.place])
        )

    @property
    def place(self) -> str:
        """The site, and the class of the modules that the arm replaces."""
        return "-".join(filter(None, (self.replace, self._where)))

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `plan` and `attach`, apart from the mechanism."""
        start = self.start or "identity"
        return {"where": self._where, "replace": self.replace, "start": start, **self.options}

    @property
    def _where(self) -> str | None:
        return None if self.replace and self.where == ANYWHERE else self.where

    @property
    def is_attention(self) -> bool:
        """Whether this arm attaches a mechanism."""
        return self.mechanism not in ("none", "control")

    def to_dict(self) -> dict[str, Any]:
        """Return the arm, ready for JSON."""
        return {**vars(self), "options": dict(self.options)}


def choose_arms(options: Resolved) -> list[Arm]:
    """Return every arm of the study: the plain host, a control for each site preset, then mechanisms x sites x starts.

    Raises:
        UsageError: an unknown mechanism or option, with the nearest one as a suggestion; or the same arm twice.
    """
    arms = [Arm("none")]
    for where in options.where:
        if options.control:
            arms.append(Arm("control", where, replace=options.replace))
        for entry in options.attention:
            name, start, given = parse(entry)
            starts = options.start if start is None else (start,)
            arms += [Arm(name, where, each, given, options.replace) for each in starts]
    slugs = [arm.slug for arm in arms]
    if twice := next((slug for slug in slugs if slugs.count(slug) > 1), None):
        raise UsageError(
            expected="every arm once",
            received=f"{twice} twice",
            do="remove the repetition from --attention, --where or --start",
        )
    return arms


def labels(arms: Sequence[Arm]) -> dict[str, str]:
    """Return each arm's name for people, with its site where the arms have several."""
    several = len({arm.where for arm in arms if arm.mechanism != "none"}) > 1
    return {arm.slug: _label(arm) + (f" at {arm.where}" if several and arm.mechanism != "none" else "") for arm in arms}


class Control(nn.Module):
    """Two 1 x 1 convolutions in a residual branch, (N, C, H, W) -> the same: parameters without attention.

    It starts as the identity.
    """

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        for parameter in self.expand.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch's output to x."""
        return x + self.expand(torch.relu(self.reduce(x)))


def control_widths(model: nn.Module, arms: Sequence[Arm], example: tuple[int, ...]) -> dict[str, Widths]:
    """Return, for each site preset, the control's hidden width by the number of channels of a site.

    The reference is the attention arm at that preset with the median number of parameters, or SE where there is none.
    At sites with C channels, the control takes the hidden width whose number of parameters is nearest to the
    reference's, and at least 1.
    """
    found = {}
    for control in (arm for arm in arms if arm.mechanism == "control"):
        rivals = [arm for arm in arms if arm.is_attention and arm.where == control.where]
        with warnings.catch_warnings(action="ignore", category=BatchOfOneWarning):  # a study trains on larger batches
            plans = [
                plan(model, arm.mechanism, example=example, **arm.arguments)
                for arm in rivals or [replace(control, mechanism="se")]
            ]
        middle = statistics.median_low(p.parameters for p in plans)
        found[control.where] = _widths(next(p for p in plans if p.parameters == middle))
    return found


def _widths(reference: Any) -> Widths:
    counts: dict[int, list[int]] = {}
    for site in reference.sites:
        counts.setdefault(site.shape[1], []).append(site.cost.parameters)
    return {wide: max(1, round((statistics.mean(n) - wide) / (2 * wide + 1))) for wide, n in counts.items()}


def _label(arm: Arm) -> str:
    if arm.mechanism == "none":
        return "plain host"
    replaces = [f"replaces {arm.replace}"] if arm.replace else []
    if arm.mechanism == "control":
        return f"control ({', '.join(['no attention', *replaces])})"
    settings = [f"{name}={value}" for name, value in arm.options.items()]
    return f"{get(arm.mechanism).__name__} ({', '.join([*settings, f'{arm.start} start', *replaces])})"


def _safe(text: str) -> str:
    """Keep the characters that every file system accepts; a digest replaces the others."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "_"
    return kept if kept == text and len(kept) <= 80 else f"{kept[:60]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
