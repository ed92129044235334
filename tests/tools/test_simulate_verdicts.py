"""Simulated studies are judged as `compare` judges, and keep their error rates; the page agrees with the record."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import simulate_verdicts as sim
from foveate.studies.design import Design
from foveate.studies.statistics import compare

ALLOWED = {studies: 0.05 + 2 * np.sqrt(0.05 * 0.95 / studies) for studies in (500, 2000)}


@pytest.mark.parametrize("design", [Design(3, 20, 3), Design(3, 20, 7), Design(3, 20, 20), Design(4, 4, 4)], ids=str)
def test_the_simulation_judges_as_compare_does(design: Design):
    scores = 80 + 0.7 * sim.draw(12, 3, sim.SPREADS["one arm four times"])[:, :, : design.seeds]
    low, high = sim.intervals(scores, design)
    methods = set()
    for study, ends in zip(scores.tolist(), zip(low.tolist(), high.tolist(), strict=True), strict=True):
        judged = compare({f"arm{row}": dict(enumerate(one)) for row, one in enumerate(study)}, "arm0", design=design)
        found = [(arm.difference.low, arm.difference.high) for arm in judged.arms if arm.difference]
        assert found == [pytest.approx(pair) for pair in zip(*ends, strict=True)]
        methods.add(judged.method)
    assert methods == {"dunnett-blocked", "paired-holm"} or design.seeds in (7, 20)


def test_an_interval_at_a_look_excludes_zero_where_its_p_is_at_most_one_in_twenty():
    design = Design(3, 20, 6)
    for stream, gain in enumerate(np.linspace(0.5, 2.5, 40)):
        scores = 0.5 * sim.draw(1, stream)[0, :, :6] + np.array([0, gain, 0, 0, 0, 0])[:, None]
        judged = compare(
            {f"arm{row}": dict(enumerate(one)) for row, one in enumerate(scores.tolist())}, "arm0", design=design
        )
        for arm in judged.arms[1:]:
            if judged.method == "dunnett-blocked":
                assert arm.difference
                assert (arm.difference.low > 0 or arm.difference.high < 0) == (arm.difference.p <= 0.0502)


@pytest.mark.reliability(32)
def test_a_null_study_that_looks_after_every_seed_rarely_alarms(tried: Any):
    null = sim.simulate(sim.draw(500, 1), np.zeros(sim.ARMS), sim.LEAST, sim.MOST, margin=1e-9)
    assert null["seeds"] > 19.5  # it looked until the end
    assert null["false_at_any_look"] <= ALLOWED[500]
    assert null["covered"] >= 1 - ALLOWED[500]
    tried(500)


def test_looking_without_allowing_for_it_would_alarm_far_more_often(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Design, "level", lambda self, arms, level: level)
    null = sim.simulate(sim.draw(300, 1), np.zeros(sim.ARMS), sim.LEAST, sim.MOST, margin=1e-9)
    assert null["false_at_any_look"] > 0.12


@pytest.mark.slow
@pytest.mark.reliability(32)
def test_2000_null_studies_however_the_arms_scatter(tried: Any):
    for name, row in sim.null_studies(2000).items():
        tried(2000)
        assert row["false_at_the_end"] <= ALLOWED[2000], name
        assert row["false_at_any_look"] <= ALLOWED[2000] + 0.01, name  # no study ends there; the final rate counts
        assert row["covered"] >= 1 - ALLOWED[2000], name


@pytest.mark.slow
def test_missing_trials_leave_the_error_rate():
    rng, alarms = np.random.default_rng(0), 0
    noise = sim.draw(200, 5, seeds=8)
    ran = rng.random(noise.shape) > 0.1
    for scores, there in zip(noise, ran, strict=True):
        for seeds in range(3, 9):
            found = {
                f"arm{row}": {s: float(scores[row, s]) for s in range(seeds) if there[row, s]}
                for row in range(sim.ARMS + 1)
            }
            judged = compare(found, "arm0", margin=1e-9, design=Design(3, 8, seeds))
            if any(arm.verdict in ("helps", "hurts") for arm in judged.arms):
                alarms += 1
                break
    assert alarms / 200 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 200)


def test_the_page_and_the_record_agree_and_the_record_shows_what_is_claimed():
    record = json.loads(sim.RECORD.read_text(encoding="utf-8"))
    page = sim.PAGE.read_text(encoding="utf-8")
    assert sim.fill(page, record) == page
    assert record["studies"] >= 2000
    allowed = 0.05 + 2 * np.sqrt(0.05 * 0.95 / record["studies"])
    assert all(row["false_at_the_end"] <= allowed for row in record["null"].values())
    whole = next(row for row in record["savings"] if row["sd"] is None)
    assert whole["seeds"] <= 0.75 * whole["fixed_seeds"]
