from collections.abc import Mapping

import numpy as np
import pytest

from foveate.studies.control import size
from foveate.studies.statistics import Comparison, Difference, compare, headline, sentences
from foveate.studies.wording import words

LABELS = {
    "none__host": "the plain model",
    "control__residual": "the control",
    "cbam-identity__residual": "CBAM (identity start)",
    "cbam-paper__residual": "CBAM (paper's start)",
    "se-identity__residual": "SE",
}


def study(effects: Mapping[str, float] | None = None, seeds: int = 5, margin: float = 1.0) -> Comparison:
    rng = np.random.default_rng(3)
    rows = {slug: 85 + (effects or {}).get(slug.split("__")[0], 0) + rng.normal(0, 0.5, seeds) for slug in LABELS}
    return compare({slug: dict(enumerate(row.tolist())) for slug, row in rows.items()}, "none__host", margin=margin)


def in_words(effects: Mapping[str, float] | None = None, margin: float = 1.0) -> str:
    return " ".join(sentences(study(effects, margin=margin), LABELS))


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (Difference(1.8, 0.6, 3.0, 0.01), "helps: +1.8 points (95 % interval +0.6 to +3.0)"),
        (Difference(-1.8, -3.0, -0.6, 0.01), "hurts: −1.8 points (95 % interval −3.0 to −0.6)"),
        (
            Difference(0.3, -1.1, 1.7, 0.9),
            "undecided: +0.3 points (95 % interval −1.1 to +1.7; could have seen ±1.4 points)",
        ),
        (Difference(0.9, 0.03, 1.77, 0.04), "helps: +0.90 points (95 % interval +0.03 to +1.77)"),
        (
            Difference(-0.01, -1.5, 1.48, 1.0),
            "undecided: +0.0 points (95 % interval −1.5 to +1.5; could have seen ±1.5 points)",
        ),
        (Difference(0.3, -0.3, 0.9, 0.5), "practically equal: +0.3 points (95 % interval −0.3 to +0.9, within ±1)"),
    ],
)
def test_words(difference: Difference, expected: str):
    assert words(difference, margin=1) == expected


def test_the_headline_names_the_best_arm_and_whether_it_beats_the_control():
    assert headline(study({"cbam-identity": 4}), LABELS).startswith("CBAM (identity start) helps: +")
    assert "over the plain model on 5 seeds, and it beats the control; " in headline(
        study({"cbam-identity": 4}), LABELS
    )
    assert "not shown to beat the control" in headline(study({"cbam-identity": 4, "control": 4}), LABELS)
    assert headline(study({"cbam-identity": 4, "se-identity": 8}), LABELS).startswith(
        "SE scores highest of the 2 arms that help"
    )


def test_the_headline_gives_decided_arms_first_and_then_what_could_have_been_seen():
    narrow = headline(study({"cbam-paper": -9}, margin=0.2), LABELS)
    assert narrow.startswith("CBAM (paper's start) hurts: −")
    assert "; SE and CBAM (identity start) are undecided: 5 seeds could have seen ±" in narrow
    assert (
        headline(study(margin=5), LABELS)
        == "All 3 attention arms are practically equal to the plain model (within ±5)."
    )
    assert headline(study(margin=0.1), LABELS).startswith(
        "All 3 attention arms are undecided: 5 seeds could have seen ±"
    )
    mixed = headline(study({"se-identity": 9, "cbam-paper": -9}, margin=5), LABELS)
    assert (
        mixed.index("SE helps: +")
        < mixed.index("CBAM (paper's start) hurts: −")
        < mixed.index("is practically equal to")
    )
    assert headline(study({"control": 9}), LABELS).startswith("All 3 attention arms are undecided")
    assert headline(study(seeds=1), LABELS) == "No verdict: at least 2 seeds are needed to tell an effect from chance."


def test_the_headline_keeps_arms_that_never_ran():
    rng = np.random.default_rng(3)
    scores = {slug: dict(enumerate((85 + rng.normal(0, 0.5, 5)).tolist())) for slug in LABELS}
    scores |= {"se-identity__residual": {}}
    text = headline(compare(scores, "none__host", margin=5), LABELS)
    assert "CBAM (identity start)" in text
    assert "are practically equal to the plain model (within ±5)" in text
    assert text.endswith("; SE could not be judged.")


def test_the_headline_without_any_attention_arm():
    scores = {
        slug: dict(enumerate(np.random.default_rng(i).normal(85, 1, 4).tolist()))
        for i, slug in enumerate(list(LABELS)[:2])
    }
    assert headline(compare(scores, "none__host"), LABELS).startswith("No verdict: there is no attention arm")


def test_a_gain_over_the_control_differs_from_a_gain_by_parameters():
    assert "CBAM (identity start) also beats the control" in in_words({"cbam-identity": 4})
    assert "its gain could be just parameters" in in_words({"cbam-identity": 4, "control": 4})
    assert "the control helps too" in in_words({"cbam-identity": 4, "control": 4})
    assert "its gain is just parameters" in in_words({"cbam-identity": 9, "control": 9}, margin=3)
    assert "plain parameters do better" in in_words({"cbam-identity": 4, "control": 9})
    assert "beat the control" not in in_words()


@pytest.mark.parametrize(
    ("effects", "margin", "more", "as_many", "fewer"),
    [
        (
            {"cbam-identity": 4},
            1,
            "also beats the control, by +",
            ": more than its parameters",
            ": more than its parameters",
        ),
        (
            {"cbam-identity": 4, "control": 4},
            0.1,
            ": its gain could be just parameters",
            ": its gain could be just parameters",
            ": more plain parameters may do as well",
        ),
        (
            {"cbam-identity": 9, "control": 9},
            3,
            ": its gain is just parameters",
            ": its gain is just parameters",
            ": more plain parameters do as well",
        ),
        (
            {"cbam-identity": 4, "control": 9},
            1,
            ": plain parameters do better",
            ": plain parameters do better",
            ": more plain parameters do better",
        ),
    ],
)
def test_what_the_control_shows_depends_on_its_parameters(effects, margin, more, as_many, fewer):
    def text(added: int) -> str:
        sizes = {"cbam-identity__residual": added, "control__residual": 1000}
        return " ".join(sentences(study(effects, margin=margin), LABELS, sizes))

    assert more in text(4000)
    assert "it adds 4,000 parameters, the control 1,000" in text(4000)
    assert as_many in text(1090)
    assert "it adds" not in text(1090)
    assert fewer in text(30)
    assert "it adds 30 parameters, the control 1,000" in text(30)


@pytest.mark.parametrize(
    ("arm", "control", "expected"),
    [
        (100, 100, "as many"),
        (110, 100, "as many"),
        (111, 100, "more"),
        (100, 111, "fewer"),
        (-100, -100, "as many"),
        (-100, -109, "as many"),
        (-100, -200, "more"),
        (-200, -100, "fewer"),
        (0, 0, "as many"),
        (0, 27, "fewer"),
        (5, -5, "more"),
    ],
)
def test_sizes_beside_the_control(arm, control, expected):
    assert size("arm", "control", {"arm": arm, "control": control}) == expected
    assert size("arm", "control", {"arm": arm}) == size("arm", "control", {}) == "as many"


def test_a_larger_arm_that_beats_the_control_is_not_said_to_do_so_without_its_parameters():
    sizes = {"cbam-identity__residual": 4000, "control__residual": 1000}
    assert "more than its parameters" not in " ".join(sentences(study({"cbam-identity": 4}), LABELS, sizes))
    assert "it beats the control, which adds fewer parameters" in headline(study({"cbam-identity": 4}), LABELS, sizes)
    assert "it beats the control;" in headline(study({"cbam-identity": 4}), LABELS)


def test_each_site_has_its_own_control():
    rng = np.random.default_rng(3)
    means = {
        "none__host": 85,
        "control__residual": 88,
        "control__stage": 93,
        "se-identity__residual": 92,
        "se-identity__stage": 93,
    }
    scores = {slug: dict(enumerate((mean + rng.normal(0, 0.5, 5)).tolist())) for slug, mean in means.items()}
    text = " ".join(sentences(compare(scores, "none__host", margin=0.1), {}))
    assert "se-identity__residual also beats the control" in text
    assert "se-identity__stage is not shown to beat the control" in text
    assert "control__stage also beats" not in text


def test_only_the_control_helps():
    assert "the control helps without any attention" in in_words({"control": 9})


def test_the_starts_are_compared():
    assert "CBAM (identity start) ends above CBAM (paper's start): +" in in_words({"cbam-paper": -9})
    assert "ends below" in in_words({"cbam-paper": 9})
    assert "Whether the start matters between CBAM (identity start) and CBAM (paper's start) is undecided" in in_words(
        margin=0.1
    )
    assert "the start makes no difference that matters" in in_words(margin=5)
    assert study(seeds=1).starts == ()


def test_the_words_say_what_could_be_seen_and_how_many_seeds_are_needed():
    text = in_words()
    assert "could have seen ±" in text
    assert "four times in five takes" in text
    assert "Method: Dunnett" in text
    assert "order may be chance" in in_words({"cbam-identity": 5, "se-identity": 5})


def test_missing_trials_are_mentioned():
    rng = np.random.default_rng(1)
    scores = {slug: dict(enumerate(rng.normal(85, 1, 4).tolist())) for slug in LABELS} | {"eca-identity__residual": {}}
    del scores["se-identity__residual"][2]
    text = " ".join(sentences(compare(scores, "none__host"), LABELS))
    assert "1 trial did not finish" in text
    assert "eca-identity__residual: not run" in text


def test_one_seed_says_why_there_is_no_interval():
    assert sentences(study(seeds=1), LABELS) == [
        "No interval can be given: at least 2 seeds are needed to tell an effect from chance."
    ]
