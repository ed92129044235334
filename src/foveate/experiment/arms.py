"""The arms of a study: what is attached where, and the control that has as many parameters but no attention."""

import hashlib
import logging
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from foveate import plain_yaml
from foveate.errors import UsageError
from foveate.experiment.first_weights import anchors_of, first_weights, load_first
from foveate.experiment.options import StudyOptions
from foveate.mechanisms import create, get
from foveate.models.detectors import build_detector
from foveate.models.heads import all_but_heads
from foveate.models.hosts import build_blank
from foveate.models.own import is_own
from foveate.normalisation import Normalisation, carry, normalisation_of
from foveate.spec import Start
from foveate.surgery import attach, plan

Widths = dict[int, int]
logger = logging.getLogger("foveate")


@dataclass(frozen=True)
class Arm:
    """One choice: a mechanism (or "none", or "control") at a site preset, with its start and options."""

    mechanism: str
    where: str = "host"
    start: Start | None = None
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def slug(self) -> str:
        """The arm's name in paths and tables: letters, digits and a few signs, distinct for distinct arms."""
        options = [f"{name}{value}" for name, value in self.options.items()]
        return "__".join(
            _safe("-".join(part)) for part in ([self.mechanism, *options, *([self.start] if self.start else [])], [self.where])
        )

    @property
    def is_attention(self) -> bool:
        """Whether this arm attaches a mechanism."""
        return self.mechanism not in ("none", "control")

    def to_dict(self) -> dict[str, Any]:
        """Return the arm, ready for JSON."""
        return {"mechanism": self.mechanism, "where": self.where, "start": self.start, "options": dict(self.options)}


def choose_arms(options: StudyOptions) -> list[Arm]:
    """Return every arm of the study: the plain host, a control for each site preset, then mechanisms x sites x starts.

    Raises:
        UsageError: an unknown mechanism or option, named with the nearest one; or an arm asked for twice.
    """
    options = options.resolved()
    arms = [Arm("none")]
    for where in options.where or ():
        if options.control:
            arms.append(Arm("control", where))
        for entry in options.attention or ():
            name, start, given = _parse(entry)
            starts = options.start if start is None else (start,)
            arms += [Arm(name, where, each, given) for each in starts]
    slugs = [arm.slug for arm in arms]
    if twice := next((slug for slug in slugs if slugs.count(slug) > 1), None):
        raise UsageError(
            expected="every arm once", received=f"{twice} twice", do="remove the repetition from --attention, --where or --start"
        )
    return arms


def labels(arms: Sequence[Arm]) -> dict[str, str]:
    """Return each arm's name for a reader; site and start are told where they differ between arms."""
    several = len({arm.where for arm in arms if arm.mechanism != "none"}) > 1
    return {arm.slug: _label(arm) + (f" at {arm.where}" if several and arm.mechanism != "none" else "") for arm in arms}


def build_host(options: StudyOptions, data: Mapping[str, Any], seed: int, *, blank: bool = False) -> nn.Module:
    """Build the host for data as they describe themselves; its first weights follow from the model and the seed alone.

    Torch's random state is left as it was. A `blank` one is not given the weights that the options name; its data are a record, which
    has the anchors that were chosen.
    """
    classes, name = len(data["classes"]), options.resolved().model or ""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if options.task == "detect":
            model = build_detector(name, classes, data["anchors"] if blank else anchors_of(options, data))
        else:
            model = build_blank(name, classes, channels=data["channels"], imgsz=data["size"])
    seen, own = Normalisation.from_dict(data.get("normalisation"), "data.json"), normalisation_of(model)
    if own not in (None, seen) and first_weights(options) is None:
        raise UsageError(
            expected=f"images of {own}, as {name} says",
            received=f"images of {seen}",
            do="give the network no normalisation, or one that does not depend on the number of classes",
        )
    if not blank:
        load_first(model, options, data)
    carry(model, seen)
    return model


def example_of(data: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return the shape of one image of data as they describe themselves."""
    return 1, data["channels"], data["size"], data["size"]


def dress(model: nn.Module, arm: Arm, seed: int, example: tuple[int, ...], widths: Mapping[str, Widths]) -> Any:
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


def freeze(model: nn.Module, options: StudyOptions, classes: int) -> None:
    """Let only what is attached and the heads learn; the host's batch norms keep their statistics. Raises UsageError without a head."""
    all_but_heads(model, classes).hold(still=True)
    if first_weights(options) is None and not is_own(options.model):
        logger.warning("--freeze without --weights: the host stays as it was drawn, and has learnt nothing")


class Control(nn.Module):
    """A plain residual pair of 1 x 1 convolutions, (N, C, H, W) -> the same: parameters without attention. Starts as the identity."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, width, 1), nn.Conv2d(width, channels, 1)
        for parameter in self.expand.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Add the pair's output to x."""
        return x + self.expand(torch.relu(self.reduce(x)))


def control_widths(model: nn.Module, arms: Sequence[Arm], example: tuple[int, ...]) -> dict[str, Widths]:
    """Return, by site preset, the control's hidden width for each width of site.

    The reference is the median attention arm there by parameters; the width is the one whose count comes nearest to that arm's at
    sites so wide, and at least 1. Without any attention arm, SE is the reference.
    """
    found = {}
    for where in dict.fromkeys(arm.where for arm in arms if arm.mechanism == "control"):
        rivals = [arm for arm in arms if arm.is_attention and arm.where == where] or [Arm("se", where, "identity")]
        plans = [plan(model, a.mechanism, a.where, example=example, start=a.start or "identity", **a.options) for a in rivals]
        middle = statistics.median_low(p.parameters for p in plans)
        found[where] = _widths(next(p for p in plans if p.parameters == middle))
    return found


def _widths(reference: Any) -> Widths:
    counts: dict[int, list[int]] = {}
    for site in reference.sites:
        counts.setdefault(site.shape[1], []).append(site.cost.parameters)
    return {wide: max(1, round((statistics.mean(n) - wide) / (2 * wide + 1))) for wide, n in counts.items()}


def _parse(entry: str) -> tuple[str, Start | None, dict[str, Any]]:
    """Read "cbam-paper:kernel_size=3" as ("cbam", "paper", {"kernel_size": 3}), having checked all of it."""
    head, *pairs = entry.strip().split(":")
    start: Start | None = "identity" if head.endswith("-identity") else "paper" if head.endswith("-paper") else None
    name = head.removesuffix(f"-{start}")
    given = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(expected="options as name:option=value", received=repr(entry), do="write for example se:reduction=8")
        try:
            given[option.strip()] = plain_yaml.load(value)
        except Exception:  # damaged YAML raises nearly anything
            raise UsageError(expected="a plain value", received=repr(pair), do="write for example reduction=8") from None
    return create(name, **given).name, start, given


def _label(arm: Arm) -> str:
    if arm.mechanism == "none":
        return "plain host"
    if arm.mechanism == "control":
        return "control (no attention)"
    told = [f"{name}={value}" for name, value in arm.options.items()]
    return f"{get(arm.mechanism).__name__} ({', '.join([*told, f'{arm.start} start'])})"


def _safe(text: str) -> str:
    """Keep what every file system takes; a digest stands for what was lost."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "_"
    return kept if kept == text and len(kept) <= 80 else f"{kept[:60]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
