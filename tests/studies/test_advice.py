"""Each branch of the advice, on results whose right advice is obvious."""

from typing import Any

import pytest

from foveate.studies.advice import advice
from foveate.studies.verdict import Difference


def arm(
    slug: str, verdict: str, gain: float | None = None, ratio: float | None = 1.04, half: float = 0.5, added: int = 100
) -> dict[str, Any]:
    difference = None if gain is None else {"estimate": gain, "low": gain - half, "high": gain + half, "p": 0.01}
    latency = {"ratio": ratio, "distinguishable": abs(ratio - 1) > 0.02} if ratio else None
    return {
        "slug": f"{slug}__{'host' if slug == 'none' else 'residual'}",
        "label": {"none": "plain host", "control": "control"}.get(slug, slug.upper()),
        "verdict": verdict,
        "difference": difference,
        "cost": {"latency": latency, "added_parameters": added},
    }


MARGIN = 1.0
HOST = arm("none", "baseline", ratio=1.0)
EQUAL_CONTROL = arm("control", "practically equal", 0.1)


def study(*arms: dict[str, Any], against: dict[str, float] | None = None, half: float = 0.5) -> dict[str, Any]:
    """`against` gives arms' differences from the control, by name."""
    family = {
        f"{name}__residual": {"verdict": Difference(gain, gain - half, gain + half, 0.01).verdict(MARGIN)}
        for name, gain in (against or {}).items()
    }
    return {"arms": list(arms), "margin": MARGIN, "versus_control": {"control__residual": family}}


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        (study(arm("none", "not run"), arm("se", "undecided")), "No advice: the plain host has no finished trial."),
        (study(HOST), "Keep the plain host: no attention was tried."),
        (
            study(HOST, arm("se", "practically equal", 0.1)),
            "Keep the plain host: SE is practically equal and 4 % slower.",
        ),
        (
            study(HOST, arm("se", "practically equal", 0.1, 1.0)),
            "Keep the plain host: SE is practically equal and not measurably slower.",
        ),
        (
            study(HOST, arm("se", "hurts", -3.0), arm("eca", "hurts", -2.0)),
            "Keep the plain host: SE and ECA are worse.",
        ),
        (
            study(
                HOST,
                arm("se", "practically equal", 0.1),
                arm("eca", "practically equal", 0.2),
                arm("cbam", "hurts", -9.0),
            ),
            "Keep the plain host: SE and ECA are practically equal, CBAM is worse.",
        ),
        (
            study(HOST, arm("se", "undecided", 0.8), arm("cbam", "hurts", -9.0)),
            "Keep the plain host until more seeds decide: CBAM is worse, SE is undecided.",
        ),
        (
            {**study(HOST, arm("control", "not run"), arm("se", "helps", 3.0)), "versus_control": {}},
            "Use SE: +3.0 points and 4 % slower; "
            "control could not be judged, so its parameters alone may explain the gain.",
        ),
        (study(HOST, arm("se", "undecided")), "Keep the plain host until more seeds decide: SE could not be judged."),
        (study(HOST, arm("se", "not run")), "Keep the plain host: SE could not be judged."),
        (
            study(HOST, arm("se", "not run"), arm("eca", "not run"), arm("cbam", "undecided", 0.8)),
            "Keep the plain host until more seeds decide: CBAM is undecided, SE and ECA could not be judged.",
        ),
        (
            study(HOST, arm("control", "helps", 2.0, 1.3), arm("se", "undecided", 0.8)),
            "Give the host more parameters rather than attention: "
            "control: +2.0 points and 30 % slower, and no attention is shown to help.",
        ),
        (
            study(HOST, arm("se", "helps", 1.8)),
            "Use SE: +1.8 points and 4 % slower; without a control arm, its parameters alone may explain the gain.",
        ),
        (
            study(HOST, EQUAL_CONTROL, arm("se", "helps", 1.8), against={"se": 1.7}),
            "Use SE: +1.8 points and 4 % slower, more than the same number of parameters brings without attention.",
        ),
        (  # the interval from 0.1 to 0.9 excludes zero, but the margin is checked first
            study(HOST, arm("control", "helps", 2.5), arm("se", "helps", 3.0), against={"se": 0.5}, half=0.4),
            "Use SE: +3.0 points and 4 % slower; "
            "it is practically equal to control, so its parameters alone may explain the gain.",
        ),
        (
            study(HOST, arm("control", "helps", 3.5), arm("se", "helps", 3.0), against={"se": -0.5}, half=0.4),
            "Use SE: +3.0 points and 4 % slower; "
            "it is practically equal to control, so its parameters alone may explain the gain.",
        ),
        (
            study(HOST, arm("control", "undecided", 3.8), arm("se", "helps", 1.8), against={"se": -2.0}),
            "Use SE: +1.8 points and 4 % slower; "
            "it scores less than control, so its parameters alone may explain the gain.",
        ),
        (
            study(HOST, EQUAL_CONTROL, arm("se", "helps", 1.8), against={"se": 0.3}, half=1.5),
            "Use SE: +1.8 points and 4 % slower; "
            "it is not shown to beat control, so its parameters alone may explain the gain.",
        ),
        (
            study(HOST, EQUAL_CONTROL, arm("se", "helps", 1.8), against={}),
            "Use SE: +1.8 points and 4 % slower; "
            "it is not shown to beat control, so its parameters alone may explain the gain.",
        ),
        (
            study(HOST, arm("control", "helps", 3.8), arm("se", "helps", 1.8), against={"se": -2.0}),
            "Give the host more parameters rather than attention: "
            "control: +3.8 points and 4 % slower, and SE brings less.",
        ),
        (
            study(
                HOST,
                EQUAL_CONTROL,
                arm("cbam", "helps", 2.4, 1.2),
                arm("se", "helps", 1.8),
                against={"se": 1.7, "cbam": 2.3},
            ),
            "Use SE: +1.8 points and 4 % slower, more than the same number of parameters brings without attention; "
            "CBAM gains 0.6 more, but is 20 % slower.",
        ),
        (
            study(
                HOST, EQUAL_CONTROL, arm("cbam", "helps", 2.3, 1.0), arm("se", "helps", 1.8, 0.9), against={"se": 1.7}
            ),
            "Use SE: +1.8 points and 10 % faster, more than the same number of parameters brings without attention; "
            "CBAM gains 0.5 more.",
        ),
        (
            study(
                HOST, EQUAL_CONTROL, arm("cbam", "helps", 2.3, None), arm("se", "helps", 1.8, 0.9), against={"se": 1.7}
            ),
            "Use SE: +1.8 points and 10 % faster, more than the same number of parameters brings without attention; "
            "CBAM gains 0.5 more.",
        ),
        (
            study(
                HOST,
                EQUAL_CONTROL,
                arm("cbam", "helps", 3.4, 2.5),
                arm("se", "helps", 1.8),
                against={"se": 1.7, "cbam": 3.3},
            ),
            "Use CBAM: +3.4 points and 2.5 times as slow, "
            "more than the same number of parameters brings without attention.",
        ),
        (
            study(HOST, EQUAL_CONTROL, arm("cbam", "helps", 3.4, None), against={"cbam": 3.3}),
            "Use CBAM: +3.4 points, more than the same number of parameters brings without attention.",
        ),
        (
            study(HOST, EQUAL_CONTROL, arm("cbam", "helps", 3.4, 0.9), against={"cbam": 3.3}),
            "Use CBAM: +3.4 points and 10 % faster, more than the same number of parameters brings without attention.",
        ),
    ],
)
def test_the_advice_follows_from_verdicts_costs_and_the_control(results: dict[str, Any], expected: str) -> None:
    assert advice(results) == expected


def test_arms_that_do_not_help_are_never_recommended() -> None:
    for verdict in ("hurts", "practically equal", "undecided", "not run"):
        assert not advice(study(HOST, EQUAL_CONTROL, arm("se", verdict, 5.0), against={"se": 5.0})).startswith("Use")
