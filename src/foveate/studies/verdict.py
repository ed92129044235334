"""The comparison as data: each arm's difference from the baseline and its verdict, in accuracy points."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from foveate.studies.design import Design

_STATISTICS = (
    *("method", "why", "critical", "df", "residual_sd", "variance_check"),
    *("seeds_for_half_point", "seeds_for_one_point"),
)

Decided = Literal["helps", "hurts", "practically equal"]
Verdict = Literal["baseline", "undecided", "not run"] | Decided


@dataclass(frozen=True)
class Difference:
    """An estimated difference, its simultaneous interval and its adjusted p."""

    estimate: float
    low: float
    high: float
    p: float

    def verdict(self, margin: float) -> Verdict:
        """Return the verdict of the whole interval: within the margin, above zero or below it, otherwise undecided.

        The margin is checked first: an interval from +0.1 to +0.5 is practically equal at a margin of 1, although it
        excludes zero.
        """
        if max(-self.low, self.high) < margin:
            return "practically equal"
        return "helps" if self.low > 0 else "hurts" if self.high < 0 else "undecided"

    @property
    def interval(self) -> str:
        """The interval in words, with enough digits to show that its ends are not zero."""
        return f"{signed(self.low, self._digits)} to {signed(self.high, self._digits)}"

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

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
    """One arm of the study: a summary of its scores, and its verdict."""

    slug: str
    n_done: int
    mean: float | None
    sd: float | None
    difference: Difference | None
    verdict: Verdict
    words: str

    @property
    def could_have_seen(self) -> float | None:
        """Half the width of its interval: the smallest estimate that would have excluded zero."""
        return self.difference.half_width if self.difference else None


@dataclass(frozen=True)
class StartContrast:
    """The same mechanism at the same sites: the identity start minus the paper's start, seed by seed."""

    identity: str
    paper: str
    difference: Difference
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """Every arm against one baseline.

    `versus_control`, one for each site's control, and `starts` are separate families, each at the same level.
    `seeds_for_*` is the number of seeds at which an effect of that size would be found with a power of 80 %; None if it
    is unknown or above a thousand.
    """

    baseline: str
    level: float
    margin: float
    seeds: tuple[int, ...]
    design: Design
    arms: tuple[ArmResult, ...]
    method: Literal["dunnett-blocked", "paired-holm"]
    why: str
    critical: float | None
    df: int
    residual_sd: float | None
    variance_check: dict[str, Any] | None
    seeds_for_half_point: int | None
    seeds_for_one_point: int | None
    versus_control: "tuple[Comparison, ...]" = ()
    starts: tuple[StartContrast, ...] = ()

    def __getitem__(self, slug: str) -> ArmResult:
        return next(arm for arm in self.arms if arm.slug == slug)

    @property
    def undecided(self) -> list[str]:
        """The arms that more seeds might decide, without those that have no finished trial."""
        return [arm.slug for arm in self.arms if arm.verdict == "undecided"]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison, ready for JSON: "margin", "design", "statistics", "arms" by slug and so on."""
        return {
            "margin": self.margin,
            "design": self.design.to_dict(),
            "statistics": {key: getattr(self, key) for key in _STATISTICS},
            "arms": {arm.slug: _without_slug(arm) for arm in self.arms},
            "versus_control": {family.baseline: family.to_dict()["arms"] for family in self.versus_control},
            "starts": [asdict(start) for start in self.starts],
        }


def _without_slug(arm: ArmResult) -> dict[str, Any]:
    return {key: value for key, value in asdict(arm).items() if key != "slug"} | {
        "could_have_seen": arm.could_have_seen
    }


def signed(value: float, digits: int) -> str:
    """Return a difference with its sign, written with a minus sign rather than a hyphen."""
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def listing(names: Sequence[str]) -> str:
    """Return "A", "A and B" or "A, B and C"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def is_control(slug: str) -> bool:
    """Return whether the arm is the parameter-matched control."""
    return slug.split("__")[0] == "control"
