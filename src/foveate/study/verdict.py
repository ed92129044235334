"""What the numbers say, in words: the comparison as data, its headline and its sentences. Everything is in accuracy points."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

_STATISTICS = (
    *("method", "why", "critical", "df", "residual_sd", "variance_check"),
    *("detectable", "seeds_for_half_point", "seeds_for_one_point"),
)

Verdict = Literal["baseline", "helps", "hurts", "no evidence", "not run"]


@dataclass(frozen=True)
class Difference:
    """An estimated difference, its simultaneous interval and its adjusted p."""

    estimate: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> Verdict:
        """The interval decides: the side of zero it lies on, or no evidence."""
        return "helps" if self.low > 0 else "hurts" if self.high < 0 else "no evidence"

    @property
    def interval(self) -> str:
        """The interval in words, with digits enough to tell its ends from zero."""
        return f"{signed(self.low, self._digits)} to {signed(self.high, self._digits)}"

    @property
    def reach(self) -> str:
        """The half width: the smallest estimate that would have counted as evidence."""
        return f"±{(self.high - self.low) / 2:.{self._digits}f}"

    @property
    def gain(self) -> str:
        """The estimate with its sign."""
        return signed(self.estimate, self._digits)

    @property
    def _digits(self) -> int:
        finest = min((abs(end) for end in (self.low, self.high) if end), default=1.0)
        return 1 if finest >= 0.05 else 2 if finest >= 0.005 else 3


@dataclass(frozen=True)
class ArmResult:
    """One arm of the study: its scores in short and what became of it."""

    slug: str
    n_done: int
    mean: float | None
    sd: float | None
    difference: Difference | None
    verdict: Verdict
    words: str


@dataclass(frozen=True)
class StartContrast:
    """The same mechanism at the same place: the identity start minus the paper's start, seed by seed."""

    identity: str
    paper: str
    difference: Difference


@dataclass(frozen=True)
class Comparison:
    """Every arm against one baseline.

    `versus_control`, one for each site's control, and `starts` are families of their own, each at the same level.
    `detectable` is the half width of the (middle) simultaneous interval. `seeds_for_*` is the number of seeds at which an effect of that
    size would be found four times in five; None when unknown or over a thousand.
    """

    baseline: str
    level: float
    seeds: tuple[int, ...]
    arms: tuple[ArmResult, ...]
    method: Literal["dunnett-blocked", "paired-holm"]
    why: str
    critical: float | None
    df: int
    residual_sd: float | None
    variance_check: dict[str, Any] | None
    detectable: float | None
    seeds_for_half_point: int | None
    seeds_for_one_point: int | None
    versus_control: "tuple[Comparison, ...]" = ()
    starts: tuple[StartContrast, ...] = ()

    def __getitem__(self, slug: str) -> ArmResult:
        return next(arm for arm in self.arms if arm.slug == slug)

    def to_dict(self) -> dict[str, Any]:
        """Return `{"statistics", "arms": {slug: ...}, "versus_control", "starts"}`, ready for JSON."""
        return {
            "statistics": {key: getattr(self, key) for key in _STATISTICS},
            "arms": {arm.slug: {key: value for key, value in asdict(arm).items() if key != "slug"} for arm in self.arms},
            "versus_control": {family.baseline: family.to_dict()["arms"] for family in self.versus_control},
            "starts": [asdict(start) for start in self.starts],
        }


def words(difference: Difference, level: float = 0.95) -> str:
    """Return the verdict of one arm in words, e.g. "helps: +1.8 points (95 % interval +0.6 to +3.0)"."""
    if difference.verdict == "no evidence":
        return f"no evidence: {difference.gain} points ({difference.interval}; this study could have seen {difference.reach})"
    return f"{difference.verdict}: {difference.gain} points ({100 * level:g} % interval {difference.interval})"


def is_control(slug: str) -> bool:
    """Return whether the arm is the parameter-matched control."""
    return slug.split("__")[0] == "control"


def signed(value: float, digits: int) -> str:
    """Return a difference with its sign, minus as a minus rather than a hyphen."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def headline(comparison: Comparison, labels: Mapping[str, str]) -> str:
    """Return the study's answer in one sentence; `labels` names each arm's slug for a reader."""
    judged = [arm for arm in comparison.arms if arm.difference and not is_control(arm.slug)]
    if not judged:
        return f"No verdict: {comparison.why if comparison.detectable is None else 'no attention arm could be set against the baseline'}."
    helping, hurting = _ranked(judged, "helps"), _ranked(judged, "hurts")
    if helping:
        best = helping[0]
        most = "helps" if len(helping) == 1 else f"scores highest of the {len(helping)} arms that help"
        gain = f"{_gain(best.difference, comparison.level)} over {_name(comparison.baseline, labels)} on {_count(comparison.seeds)}"
        return f"{_name(best.slug, labels)} {most}: {gain}{_beside_control(comparison, best.slug)}."
    unseen = f"this study of {_count(comparison.seeds)} could have seen {_size(comparison.detectable)}"
    if hurting:
        worst = hurting[-1]
        most = "hurts" if len(hurting) == 1 else f"scores lowest of the {len(hurting)} arms that hurt"
        gain = _gain(worst.difference, comparison.level)
        return f"No evidence that any attention helps, and {_name(worst.slug, labels)} {most}: {gain}; {unseen}."
    return f"No evidence that any attention helps or hurts: {unseen}."


def sentences(comparison: Comparison, labels: Mapping[str, str]) -> list[str]:
    """Return the answer in full: who helps and who hurts, whether parameters alone explain it, the starts, and what could be seen."""
    return [
        *_standing(comparison, labels),
        *_against_control(comparison, labels),
        *(_start(contrast, comparison.level, labels) for contrast in comparison.starts),
        *_sight(comparison),
    ]


def _standing(comparison: Comparison, labels: Mapping[str, str]) -> Iterator[str]:
    level, baseline = comparison.level, _name(comparison.baseline, labels)
    helping, hurting, unclear = (_ranked(comparison.arms, verdict) for verdict in ("helps", "hurts", "no evidence"))
    for verb, arms in (("helps", helping), ("hurts", hurting)):
        yield from (f"{_name(arm.slug, labels)} {verb}: {_gain(arm.difference, level)} against {baseline}." for arm in arms)
    if len(helping) > 1:
        yield "Each of them is compared with the baseline, not with the others: their order may be chance."
    if unclear:
        yield f"No evidence either way for {_listing([_name(arm.slug, labels) for arm in unclear])}."
    for arm in comparison.arms:
        if arm.verdict == "not run" or (arm.verdict == "no evidence" and not arm.difference and comparison.detectable is not None):
            yield f"{_name(arm.slug, labels)}: {arm.words}."


def _against_control(comparison: Comparison, labels: Mapping[str, str]) -> Iterator[str]:
    helping = [arm for arm in _ranked(comparison.arms, "helps") if not is_control(arm.slug)]
    for family in comparison.versus_control:
        if comparison[family.baseline].verdict == "helps":
            helps = "helps too, without any attention" if helping else "helps without any attention"
            yield f"{_name(family.baseline, labels)} {helps}: more parameters alone bring something here."
    for arm in helping:
        against = _beside(comparison, arm.slug)
        if against is None:
            continue
        name = _name(arm.slug, labels)
        if against.verdict == "helps":
            yield f"{name} also beats the parameter-matched control, by {_gain(against, comparison.level)}: more than its parameters."
        elif against.verdict == "hurts":
            yield f"{name} falls short of the parameter-matched control, {_gain(against, comparison.level)}: plain parameters do better."
        else:
            gain = f"{against.gain} points; {against.interval}"
            yield f"{name} is not shown to beat the parameter-matched control ({gain}): its gain could be just parameters."


def _beside(comparison: Comparison, slug: str) -> Difference | None:
    """Return the arm's difference from the control at its own site."""
    return next((arm.difference for family in comparison.versus_control for arm in family.arms if arm.slug == slug), None)


def _beside_control(comparison: Comparison, slug: str) -> str:
    against = _beside(comparison, slug)
    if against is None:
        return ""
    beats = against.verdict == "helps"
    return ", and it beats the parameter-matched control" if beats else "; it is not shown to beat the parameter-matched control"


def _start(contrast: StartContrast, level: float, labels: Mapping[str, str]) -> str:
    identity, paper, difference = _name(contrast.identity, labels), _name(contrast.paper, labels), contrast.difference
    if difference.verdict == "no evidence":
        return f"No evidence that the start matters between {identity} and {paper}: {difference.gain} points ({difference.interval})."
    side = "above" if difference.verdict == "helps" else "below"
    return f"{identity} ends {side} {paper}: {_gain(difference, level)}, so the start matters."


def _sight(comparison: Comparison) -> Iterator[str]:
    if comparison.detectable is None:
        yield f"No interval can be given: {comparison.why}."
        return
    seen = _size(comparison.detectable)
    yield f"With {_count(comparison.seeds)} this study could have seen {seen}: smaller differences pass for chance."
    missing = sum(len(comparison.seeds) - arm.n_done for arm in comparison.arms if arm.n_done)
    if missing:
        yield f"{missing} trial{'s' * (missing != 1)} did not finish: arms are compared over what did, allowing for the seeds they missed."
    half, one = (n or "over 1000" for n in (comparison.seeds_for_half_point, comparison.seeds_for_one_point))
    yield f"To find a true effect four times in five takes {one} seeds for 1 point and {half} for 0.5 points."
    method = "Dunnett's comparison, seeds as blocks" if comparison.method == "dunnett-blocked" else "paired t tests with Holm's correction"
    yield f"Method: {method}; {comparison.why}."


def _ranked(arms: Sequence[ArmResult], verdict: Verdict) -> list[ArmResult]:
    judged = [(arm.difference.estimate, arm) for arm in arms if arm.difference and arm.verdict == verdict]
    return [arm for _, arm in sorted(judged, key=lambda pair: -pair[0])]


def _gain(difference: Difference | None, level: float) -> str:
    return words(difference, level).split(": ", 1)[1] if difference else ""


def _name(slug: str, labels: Mapping[str, str]) -> str:
    return labels.get(slug, slug)


def _size(points: float | None) -> str:
    return "nothing" if points is None else f"±{points:.1f} points" if points >= 0.1 else f"±{points:.2g} points"


def _count(seeds: Sequence[int]) -> str:
    return f"{len(seeds)} seed{'s' * (len(seeds) != 1)}"


def _listing(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
