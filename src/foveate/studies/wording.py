"""A comparison in words: the verdict of each arm, the headline and the sentences, all in accuracy points."""

from collections.abc import Iterator, Mapping, Sequence

from foveate.errors import counted
from foveate.studies.control import AddedParameters, meaning, size
from foveate.studies.verdict import ArmResult, Comparison, Difference, StartContrast, Verdict, is_control, listing

_METHODS = {
    "dunnett-blocked": "Dunnett's comparison, seeds as blocks",
    "paired-holm": "paired t tests with Holm's correction",
}


def words(difference: Difference, margin: float, level: float = 0.95) -> str:
    """Return the verdict of one arm in words, e.g. "helps: +1.8 points (95 % interval +0.6 to +3.0)"."""
    return f"{difference.verdict(margin)}: {gain(difference, margin, level)}"


def gain(difference: Difference, margin: float, level: float = 0.95) -> str:
    """Return the difference in words, with its interval and the margin or, if undecided, what could have been seen."""
    more = {
        "practically equal": f", within ±{margin:g}",
        "undecided": f"; could have seen {_size(difference.half_width)}",
    }
    interval = f"{100 * level:g} % interval {difference.interval}{more.get(difference.verdict(margin), '')}"
    return f"{difference.gain} points ({interval})"


def headline(comparison: Comparison, labels: Mapping[str, str], added: AddedParameters | None = None) -> str:
    """Return the study's answer in one sentence: what was decided, then what is undecided and could have been seen.

    `labels` names each arm's slug for people; `added` are the parameters that each arm adds.
    """
    attention = [arm for arm in comparison.arms if arm.slug != comparison.baseline and not is_control(arm.slug)]
    if not any(arm.difference for arm in attention):
        return f"No verdict: {_why_none(comparison)}."
    parts = [*_helping(comparison, attention, labels, added or {}), *_hurting(comparison, attention, labels)]
    parts += [
        *_equal(comparison, attention, labels),
        *_undecided(comparison, attention, labels),
        *_unjudged(attention, labels),
    ]
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."


def sentences(comparison: Comparison, labels: Mapping[str, str], added: AddedParameters | None = None) -> list[str]:
    """Return the full answer: each arm's verdict, the controls, the starts, and what could have been seen."""
    return [
        *_verdicts(comparison, labels),
        *_against_control(comparison, labels, added or {}),
        *(_start(contrast, comparison, labels) for contrast in comparison.starts),
        *_limits(comparison),
    ]


def _why_none(comparison: Comparison) -> str:
    compared = any(arm.difference for arm in comparison.arms)
    return "there is no attention arm with an interval" if compared else comparison.why


def _helping(
    comparison: Comparison, attention: Sequence[ArmResult], labels: Mapping[str, str], added: AddedParameters
) -> Iterator[str]:
    if helping := _ranked(attention, "helps"):
        best = helping[0]
        most = "helps" if len(helping) == 1 else f"scores highest of the {len(helping)} arms that help"
        over = f"over {_name(comparison.baseline, labels)} on {_count(comparison.seeds)}"
        control = _beats_control(comparison, best.slug, added)
        yield f"{_name(best.slug, labels)} {most}: {_gain(best, comparison)} {over}{control}"


def _hurting(comparison: Comparison, attention: Sequence[ArmResult], labels: Mapping[str, str]) -> Iterator[str]:
    if hurting := _ranked(attention, "hurts"):
        worst = hurting[-1]
        most = "hurts" if len(hurting) == 1 else f"scores lowest of the {len(hurting)} arms that hurt"
        yield f"{_name(worst.slug, labels)} {most}: {_gain(worst, comparison)}"


def _equal(comparison: Comparison, attention: Sequence[ArmResult], labels: Mapping[str, str]) -> Iterator[str]:
    if equal := _ranked(attention, "practically equal"):
        are, baseline = "is" if len(equal) == 1 else "are", _name(comparison.baseline, labels)
        yield f"{_who(equal, attention, labels)} {are} practically equal to {baseline} (within ±{comparison.margin:g})"


def _undecided(comparison: Comparison, attention: Sequence[ArmResult], labels: Mapping[str, str]) -> Iterator[str]:
    if open_ := _ranked(attention, "undecided"):
        are = "is" if len(open_) == 1 else "are"
        halves = [arm.could_have_seen or 0.0 for arm in open_]
        least, most = _size(min(halves)), _size(max(halves))
        seen = most if least == most else f"{least.removesuffix(' points')} to {most}"
        yield f"{_who(open_, attention, labels)} {are} undecided: {_count(comparison.seeds)} could have seen {seen}"


def _unjudged(attention: Sequence[ArmResult], labels: Mapping[str, str]) -> Iterator[str]:
    if unjudged := [_name(arm.slug, labels) for arm in attention if arm.difference is None]:
        yield f"{listing(unjudged)} could not be judged"


def _who(arms: Sequence[ArmResult], attention: Sequence[ArmResult], labels: Mapping[str, str]) -> str:
    """Name the arms, or count them if they are all attention arms."""
    if len(arms) == len(attention) > 1:
        return f"all {len(arms)} attention arms"
    return listing([_name(arm.slug, labels) for arm in arms])


def _verdicts(comparison: Comparison, labels: Mapping[str, str]) -> Iterator[str]:
    baseline = _name(comparison.baseline, labels)
    helping, hurting, equal, open_ = (
        _ranked(comparison.arms, one) for one in ("helps", "hurts", "practically equal", "undecided")
    )
    for verb, arms in (("helps", helping), ("hurts", hurting)):
        yield from (f"{_name(arm.slug, labels)} {verb}: {_gain(arm, comparison)} against {baseline}." for arm in arms)
    if len(helping) > 1:
        yield "Each of them is compared with the baseline, not with the others: their order may be chance."
    yield from (
        f"{_name(arm.slug, labels)} is practically equal to {baseline}: {_gain(arm, comparison)}." for arm in equal
    )
    yield from (f"{_name(arm.slug, labels)} is undecided: {_gain(arm, comparison)}." for arm in open_)
    for arm in comparison.arms:
        if arm.verdict == "not run" or (
            arm.verdict == "undecided" and not arm.difference and comparison.critical is not None
        ):
            yield f"{_name(arm.slug, labels)}: {arm.words}."


def _against_control(comparison: Comparison, labels: Mapping[str, str], added: AddedParameters) -> Iterator[str]:
    helping = [arm for arm in _ranked(comparison.arms, "helps") if not is_control(arm.slug)]
    for family in comparison.versus_control:
        if comparison[family.baseline].verdict == "helps":
            helps = "helps too, without any attention" if helping else "helps without any attention"
            yield f"{_name(family.baseline, labels)} {helps}: more parameters alone help here."
    relations = {
        "helps": "also beats the control, by",
        "hurts": "falls short of the control,",
        "practically equal": "is practically equal to the control,",
        "undecided": "is not shown to beat the control,",
    }
    for arm in helping:
        for family, against in _families_of(comparison, arm.slug):
            relation = f"{_name(arm.slug, labels)} {relations[against.verdict]} {_gain(against, comparison)}"
            yield f"{relation}{meaning(against.verdict, arm.slug, family.baseline, added)}."


def _families_of(comparison: Comparison, slug: str) -> Iterator[tuple[Comparison, ArmResult]]:
    """Yield the comparison with the control at the arm's own site, and the arm's result in it."""
    for family in comparison.versus_control:
        yield from ((family, arm) for arm in family.arms if arm.slug == slug and arm.difference)


def _beats_control(comparison: Comparison, slug: str, added: AddedParameters) -> str:
    for family, against in _families_of(comparison, slug):
        if against.verdict != "helps":
            return ", but it is not shown to beat the control"
        more = ", which adds fewer parameters" if size(slug, family.baseline, added) == "more" else ""
        return f", and it beats the control{more}"
    return ""


def _start(contrast: StartContrast, comparison: Comparison, labels: Mapping[str, str]) -> str:
    identity, paper = _name(contrast.identity, labels), _name(contrast.paper, labels)
    by = gain(contrast.difference, comparison.margin, comparison.level)
    return {
        "helps": f"{identity} ends above {paper}: {by}, so the start matters.",
        "hurts": f"{identity} ends below {paper}: {by}, so the start matters.",
        "practically equal": f"{identity} and {paper} end practically equal: {by}, "
        "so the start makes no difference that matters.",
    }.get(contrast.verdict, f"Whether the start matters between {identity} and {paper} is undecided: {by}.")


def _limits(comparison: Comparison) -> Iterator[str]:
    if comparison.critical is None:
        yield f"No interval can be given: {comparison.why}."
        return
    design = comparison.design
    if design.kind == "sequential":
        added = f"Seeds were added one by one, {design.least} to at most {design.most}"
        yield f"{added}: the intervals allow for {counted(design.looks, 'look')}."
    missing = sum(len(comparison.seeds) - arm.n_done for arm in comparison.arms if arm.n_done)
    if missing:
        yield f"{counted(missing, 'trial')} did not finish: the others are compared, allowing for missing seeds."
    half, one = (n or "over 1000" for n in (comparison.seeds_for_half_point, comparison.seeds_for_one_point))
    needed = f"{counted(one, 'seed')} for 1 point and {half} for 0.5 points"
    yield f"To find a true effect four times in five takes {needed}."
    yield f"Method: {_METHODS[comparison.method]}; {comparison.why}."


def _ranked(arms: Sequence[ArmResult], verdict: Verdict) -> list[ArmResult]:
    judged = [(arm.difference.estimate, arm) for arm in arms if arm.difference and arm.verdict == verdict]
    return [arm for _, arm in sorted(judged, key=lambda pair: -pair[0])]


def _gain(arm: ArmResult, comparison: Comparison) -> str:
    return gain(arm.difference, comparison.margin, comparison.level) if arm.difference else ""


def _name(slug: str, labels: Mapping[str, str]) -> str:
    return labels.get(slug, slug)


def _size(points: float) -> str:
    return f"±{points:.1f} points" if points >= 0.1 else f"±{points:.2g} points"


def _count(seeds: Sequence[int]) -> str:
    return counted(len(seeds), "seed")
