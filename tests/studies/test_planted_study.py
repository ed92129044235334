"""A study finds the planted effect, and nothing where nothing can help."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from foveate.data.planted import KINDS, PlantedKind
from foveate.errors import UsageError
from foveate.experiment.options import StudyOptions, located
from foveate.studies.costs import measure_costs
from planted_studies import RECORD, STUDIES, found, page, run, study

# The control has its own test: it learns slowly and shows nothing here.
SMALL = {"control": False, "train_count": 500, "val_count": 50, "test_count": 300, "batch": 25}


@pytest.fixture(autouse=True)
def _latencies_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.studies.run.measure_costs", functools.partial(measure_costs, seconds=0))


@pytest.mark.parametrize("kind", ["where", pytest.param("what", marks=pytest.mark.slow)])
@pytest.mark.reliability(22)
def test_a_study_finds_the_planted_effect(kind: PlantedKind, tmp_path: Path) -> None:
    one = study(kind, 0, tmp_path, seeds=3, **SMALL)
    assert one["found"], one["headline"]


@pytest.mark.reliability(22)
def test_no_arm_helps_where_nothing_can_help(tmp_path: Path) -> None:
    """One study in twenty may say "hurts"; the sixty published studies count these."""
    one = study("neither", 0, tmp_path, seeds=2, **SMALL)
    assert "helps" not in {arm["verdict"] for arm in one["arms"].values()}, one["headline"]


def test_the_published_studies_found_the_planted_effects_and_their_page_is_current(root: Path) -> None:
    kept = json.loads((root / RECORD).read_bytes())
    for one in kept["studies"]:
        assert one["found"] == found(one["kind"], one["arms"])
    for kind in KINDS:
        assert sum(not one["found"] for one in kept["studies"] if one["kind"] == kind) <= 1, kind
    published = (root / "docs/results/planted.md").read_text(encoding="utf-8").partition("\n---\n")[2]
    assert published == f"\n{page(kept)}"


@pytest.mark.parametrize(
    ("kind", "verdicts", "expected"),
    [
        ("where", {"spatial": "helps", "se": "undecided", "control": "hurts"}, True),
        ("where", {"spatial": "helps", "se": "helps", "control": "undecided"}, False),
        ("where", {"spatial": "undecided", "se": "undecided", "control": "undecided"}, False),
        ("what", {"spatial": "helps", "se": "undecided", "control": "undecided"}, False),
        ("neither", {"spatial": "undecided", "se": "practically equal", "control": "undecided"}, True),
        ("neither", {"spatial": "helps", "se": "undecided", "control": "undecided"}, False),
        ("neither", {"spatial": "undecided", "se": "hurts", "control": "undecided"}, False),
    ],
)
def test_what_counts_as_found(kind: PlantedKind, verdicts: dict[str, str], expected: bool) -> None:
    assert found(kind, {name: {"verdict": verdict} for name, verdict in verdicts.items()}) == expected


@pytest.mark.slow
@pytest.mark.reliability(22)
def test_twenty_studies_of_each_kind(tmp_path: Path, tried: Any) -> None:
    kept = run(tmp_path / "planted.json", STUDIES)
    for kind in KINDS:
        assert sum(one["found"] for one in kept["studies"] if one["kind"] == kind) >= STUDIES - 1, kind
    tried(len(kept["studies"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": Path("planted:wat")}, "what"),
        ({"data": Path("planted:what"), "task": "detect"}, "planted data with --task classify"),
        ({"data": Path("planted:what"), "imgsz": 64}, "--imgsz 64"),
        ({"data": Path("planted:what"), "noise": 0.5}, "--noise for planted:what"),
        ({"data": Path("planted:what"), "augment": False}, "--no-augment"),
    ],
    ids=str,
)
def test_options_that_planted_data_do_not_take_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        StudyOptions(**options)


def test_planted_data_are_not_a_path() -> None:
    assert located(StudyOptions(data=Path("planted:what")).to_dict())["data"] == "planted:what"
