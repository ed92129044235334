"""The planner against closed formulas and against an independent simulation."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.cluster_simulation import NONE, Differences, simulate

from foveate.experiment.arms import choose_arms
from foveate.studies.outline import Outline
from foveate.studies.planner import LARGEST, Probe, Workload, ends, predict, useful
from studies.tiny import tiny

PROBE = Probe(start_up=10.0, event=0.0, bandwidth=1e8, slots=2, speed=1.0)


def equal(trials: int, seconds: float = 100.0, **changes: float) -> Workload:
    return Workload(((seconds,) * trials,), **{"shipped": 0.0, "returned": 0.0, "events": 1, **changes})  # type: ignore[arg-type]


def seconds_on(work: Workload, machines: int, probe: Probe = PROBE) -> float:
    return predict(work, probe, [machines])[0].seconds


@pytest.mark.parametrize(
    ("slots", "ended"),
    [(1, [1.0, 3.0, 6.0, 10.0]), (2, [1.0, 2.0, 4.0, 6.0]), (3, [1.0, 2.0, 3.0, 5.0]), (9, [1.0, 2.0, 3.0, 4.0])],
)
def test_when_trials_end_that_begin_in_order(slots: int, ended: list[float]) -> None:
    assert ends((1.0, 2.0, 3.0, 4.0), slots) == ended


@pytest.mark.parametrize(("machines", "waves"), [(1, 10), (2, 5), (3, 4), (10, 1), (1000, 1)])
def test_equal_trials_take_whole_waves(machines: int, waves: int) -> None:
    assert seconds_on(equal(20), machines) == pytest.approx(10.0 + 100.0 * waves)


def test_a_round_waits_for_the_one_before() -> None:
    looks = Workload(((100.0,) * 3, (100.0,), (50.0,)), 0.0, 0.0, 1)
    assert seconds_on(looks, 100) == pytest.approx(10 + 100 + 100 + 50)


def test_a_node_twice_as_fast_halves_the_trials() -> None:
    fast = replace(PROBE, speed=2.0)
    assert seconds_on(equal(20), 10, fast) == pytest.approx(10 + 50)


@pytest.mark.parametrize(("machines", "transfers"), [(1, 1), (2, 2), (3, 2), (7, 3), (8, 4), (1000, 10)])
def test_those_that_have_the_data_send_them_on(machines: int, transfers: int) -> None:
    slower = seconds_on(equal(5000, shipped=1e9), machines) - seconds_on(equal(5000), machines)
    assert slower == pytest.approx(10.0 * transfers)


@pytest.mark.parametrize(
    ("work", "machines", "bound"),
    [
        (equal(1000), 1, "training"),
        (Workload(((100.0,) * 10 + (1000.0,),), 0.0, 0.0, 1), 5, "idle cores, while the last trials end"),
        (equal(100, shipped=1e11), 50, "shipping the data"),
        (equal(100, returned=1e9), 50, "the driver, which receives the results"),
        (equal(1, seconds=1.0), 1, "the start of the nodes"),
        (equal(1, after=1e3), 1, "latencies and the report"),
    ],
)
def test_what_takes_most_of_the_time_is_named(work: Workload, machines: int, bound: str) -> None:
    assert predict(work, PROBE, [machines])[0].bound == bound


def test_machines_that_bring_nothing_are_not_listed() -> None:
    assert useful(equal(16), PROBE) == [1, 2, 4, 8]
    assert useful(equal(100_000), PROBE)[-1] == LARGEST


@pytest.mark.parametrize("machines", [1, 2, 5, 16, 100, 1000])
@pytest.mark.parametrize(
    ("changes", "too_long"),
    [({}, 0.005), ({"shipped": 5e8}, 0.08), ({"returned": 1e8, "events": 22}, 0.005)],
    ids=["plain", "shipped", "results"],
)
def test_it_agrees_with_the_simulation_of_equal_machines(
    machines: int, changes: dict[str, float], too_long: float
) -> None:
    """Nodes that have the data early begin early, which the planner leaves out: it predicts more then, never less."""
    chance = random.Random(machines)
    trials = [chance.uniform(50, 150) for _ in range(60)]
    probe = Probe(start_up=10.0, event=0.002, bandwidth=1e8, slots=2, speed=1.5)
    rounds = (tuple(trials[:40]), tuple(trials[40:]))
    work = Workload(rounds, **{"shipped": 0.0, "returned": 0.0, "events": 10, "after": 5.0, **changes})  # type: ignore[arg-type]
    simulated = simulate(work, probe, machines, NONE, 0)
    assert 0.995 * simulated <= seconds_on(work, machines, probe) <= (1 + too_long) * simulated


def test_a_slow_machine_bounds_a_simulated_study() -> None:
    """With a slot for each trial, a machine at half speed doubles the time."""
    slow = Differences(machine=0.0, slow=1.0, trial=0.0)
    assert simulate(equal(20), PROBE, 100, slow, 0) == pytest.approx(simulate(equal(10), PROBE, 100, NONE, 0) + 100.0)


def test_trials_of_a_failed_machine_run_elsewhere() -> None:
    failing = Differences(0.0, 0.0, 0.0, days=500 / 86400)  # machines fail after 500 s in the mean
    times = [simulate(equal(8), PROBE, 4, failing, seed) for seed in range(50)]
    alone = simulate(equal(8), PROBE, 4, NONE, 0)
    finite = [seconds for seconds in times if seconds != float("inf")]
    assert len(finite) > 40
    assert min(finite) >= alone - 0.1
    assert max(finite) >= 2 * alone - 10.0
    assert float("inf") in [simulate(equal(50), PROBE, 1, failing, seed) for seed in range(50)]


def test_only_the_machines_that_are_used_get_the_data() -> None:
    assert seconds_on(equal(6, shipped=1e9), 1000) == seconds_on(equal(6, shipped=1e9), 3)


def test_a_study_is_predicted_from_its_steps(tmp_path: Path) -> None:
    options = tiny(tmp_path, attention=("se", "eca"), seeds="3..5", epochs=2, jobs=None, engine="ray").resolve()
    arms, steps = choose_arms(options), {"none": 1.0, "se": 2.0, "eca": 3.0}
    steps = {arm.slug: steps[arm.mechanism or "none"] for arm in arms}
    counts = {"train": 64, "val": 0, "test": 0}
    plan = Outline(options, arms, dict.fromkeys(steps), {}, 25_000_000, counts, steps, jobs=1, threads=1, finished=4)
    # A trial takes 2 epochs of 2 steps and 1 s; 4 trials of the first round are finished, 3 + 2 rounds of 3 remain.
    trials = {slug: 1 + 4 * seconds for slug, seconds in steps.items()}
    one, other, third = trials.values()
    first = [other, third, one, other, third]
    alone = plan.on_machines(replace(PROBE, slots=1, start_up=0.0), shipped=0).forecasts[0]
    received = 4 * 25e6 / 1e8  # after the last trial of each round
    assert alone.seconds == pytest.approx(sum(first) + 2 * (one + other + third) + 3 * received + 25, abs=1e-6)
