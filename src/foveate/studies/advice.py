"""One sentence of advice: what the verdicts and the costs in results.json recommend."""

from collections.abc import Mapping, Sequence
from typing import Any

from foveate.studies.control import size
from foveate.studies.verdict import is_control, listing, signed

Arm = Mapping[str, Any]


def advice(results: Mapping[str, Any]) -> str:
    """Return what to do with the host: use an arm, keep the plain host, or wait for more seeds."""
    host = next((arm for arm in results["arms"] if arm["verdict"] == "baseline"), None)
    if host is None:
        return "No advice: the plain host has no finished trial."
    others = [arm for arm in results["arms"] if arm is not host]
    attention = [arm for arm in others if not is_control(arm["slug"])]
    helping = _by_gain(arm for arm in attention if arm["verdict"] == "helps")
    if helping:
        return _use(results, helping)
    if plain := _by_gain(arm for arm in others if is_control(arm["slug"]) and arm["verdict"] == "helps"):
        return (
            f"Give the host more parameters rather than attention: {_summary(plain[0])}, "
            "and no attention is shown to help."
        )
    return _keep(attention)


def _use(results: Mapping[str, Any], helping: Sequence[Arm]) -> str:
    """Recommend the fastest of the arms whose gain is within the margin of the highest."""
    best, margin = helping[0], results["margin"]
    near = [arm for arm in helping if _gain(best) - _gain(arm) <= margin]
    chosen = min(near, key=_ratio)
    control, against = _control_of(results, chosen)
    if control and against == "hurts" and control["verdict"] == "helps":
        fewer = f"{chosen['label']} brings less"
        return f"Give the host more parameters rather than attention: {_summary(control)}, and {fewer}."
    rival = _rival(best, chosen) if chosen is not best else ""
    return f"Use {_summary(chosen)}{_against_control(chosen, control, against)}{rival}."


def _keep(attention: Sequence[Arm]) -> str:
    groups = [
        ([arm for arm in attention if arm["verdict"] == "practically equal"], "practically equal"),
        ([arm for arm in attention if arm["verdict"] == "hurts"], "worse"),
        ([arm for arm in attention if arm["verdict"] == "undecided" and arm["difference"]], "undecided"),
    ]
    parts = [_group(arms, words) for arms, words in groups if arms]
    if unjudged := [arm["label"] for arm in attention if not arm["difference"]]:
        parts.append(f"{listing(unjudged)} could not be judged")
    until = " until more seeds decide" if any(arm["verdict"] == "undecided" for arm in attention) else ""
    return f"Keep the plain host{until}: {', '.join(parts) if parts else 'no attention was tried'}."


def _group(arms: Sequence[Arm], words: str) -> str:
    verb = "is" if len(arms) == 1 else "are"
    paces = " and " + _pace(arms[0]) if words == "practically equal" and len(arms) == 1 and _pace(arms[0]) else ""
    return f"{listing([arm['label'] for arm in arms])} {verb} {words}{paces}"


def _summary(arm: Arm) -> str:
    pace = _pace(arm)
    return f"{arm['label']}: {signed(_gain(arm), 1)} points" + (f" and {pace}" if pace else "")


def _rival(best: Arm, chosen: Arm) -> str:
    """Name the arm with the highest gain where a faster arm is recommended."""
    slower = f", but is {_pace(best)}" if _ratio(best) > 1 else ""
    return f"; {best['label']} gains {_gain(best) - _gain(chosen):.1f} more{slower}"


def _against_control(arm: Arm, control: Arm | None, against: str | None) -> str:
    if control is None:
        return "; without a control arm, its parameters alone may explain the gain"
    if control["verdict"] == "not run":
        return f"; {control['label']} could not be judged, so its parameters alone may explain the gain"
    added = {one["slug"]: one["cost"]["added_parameters"] for one in (arm, control) if one["cost"]}
    beside = size(arm["slug"], control["slug"], added)
    if against == "helps" and beside == "more":
        return f"; it beats {control['label']}, which adds fewer parameters"
    if against == "helps":
        return ", more than the same number of parameters brings without attention"
    relation = {"practically equal": "is practically equal to", "hurts": "scores less than"}.get(
        against or "", "is not shown to beat"
    )
    explained = "which adds more parameters" if beside == "fewer" else "so its parameters alone may explain the gain"
    return f"; it {relation} {control['label']}, {explained}"


def _control_of(results: Mapping[str, Any], arm: Arm) -> tuple[Arm | None, str | None]:
    """Return the control at the arm's site, and the arm's verdict against it."""
    site = arm["slug"].partition("__")[2]
    control = next(
        (other for other in results["arms"] if is_control(other["slug"]) and other["slug"].partition("__")[2] == site),
        None,
    )
    family = results["versus_control"].get(control["slug"], {}) if control else {}
    return control, family.get(arm["slug"], {}).get("verdict")


def _pace(arm: Arm) -> str:
    """Return how the arm's measured latency compares with the plain host's, empty if it was not measured."""
    latency = (arm["cost"] or {}).get("latency")
    if not latency:
        return ""
    if not latency["distinguishable"]:
        return "not measurably slower"
    percent = 100 * abs(latency["ratio"] - 1)
    if latency["ratio"] >= 2:
        return f"{latency['ratio']:.1f} times as slow"
    return f"{percent:.0f} % {'slower' if latency['ratio'] > 1 else 'faster'}"


def _ratio(arm: Arm) -> float:
    latency = (arm["cost"] or {}).get("latency")
    return 1.0 if latency is None or not latency["distinguishable"] else latency["ratio"]


def _gain(arm: Arm) -> float:
    return arm["difference"]["estimate"]


def _by_gain(arms: Any) -> list[Arm]:
    return sorted(arms, key=_gain, reverse=True)
