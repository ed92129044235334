import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.harness import CLOCKS, RESULTS, check, measure_calls, provenance, write

from work import Clock


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the harness's wall clock by one that the test moves."""
    clock = Clock()
    monkeypatch.setitem(CLOCKS, "wall", clock)
    return clock


def record(clock: Clock) -> dict[str, Any]:
    calls = measure_calls({"plain": lambda: clock.sleep(0.001), "slow": lambda: clock.sleep(0.003)}, "plain", 3)
    return {
        "schema": 1,
        "name": "x",
        "rounds": 3,
        "provenance": provenance(1, 0.0),
        "results": [{"host": "h", "calls": calls}],
    }


def test_calls_are_measured_in_so_many_rounds(clock: Clock) -> None:
    count = {"a": 0, "b": 0}

    def call(name: str) -> None:
        count[name] += 1
        clock.sleep(0.004 if name == "b" else 0.001)

    measured = measure_calls({"a": lambda: call("a"), "b": lambda: call("b")}, "a", 5)
    assert count["a"] == count["b"] == 11  # once to warm up, then untimed and timed in each round
    assert measured["a"]["ratio"] == 1
    assert measured["b"]["ratio"] == pytest.approx(4)
    assert (measured["b"]["q1"], measured["b"]["ms"], measured["b"]["q3"]) == pytest.approx((4, 4, 4))


def test_a_record_is_written_with_its_provenance(clock: Clock, tmp_path: Path) -> None:
    write(record(clock), tmp_path / "x.json")
    again = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert check(again) == []
    assert again["provenance"]["environment"]["packages"]["torch"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: r.update(schema=2), "schema"),
        (lambda r: r.pop("rounds"), "record.rounds"),
        (lambda r: r["provenance"].pop("commit"), "provenance.commit"),
        (lambda r: r["results"][0].pop("calls"), "no calls"),
        (lambda r: r["results"][0]["calls"]["slow"].update(ms="fast"), "ms"),
        (lambda r: r["results"][0]["calls"]["slow"].update(low=1e9), "outside its interval"),
    ],
)
def test_a_record_that_is_not_of_the_schema_is_refused(clock: Clock, tmp_path: Path, spoil: Any, said: str) -> None:
    spoilt = record(clock)
    spoil(spoilt)
    with pytest.raises(ValueError, match=said):
        write(spoilt, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_committed_record_is_of_the_schema(path: Path) -> None:
    assert check(json.loads(path.read_text(encoding="utf-8"))) == []


def test_a_short_call_is_repeated_and_told_per_call(clock: Clock) -> None:
    count = {"short": 0, "long": 0}

    def call(name: str, seconds: float) -> None:
        count[name] += 1
        clock.sleep(seconds)

    measured = measure_calls(
        {"long": lambda: call("long", 0.02), "short": lambda: call("short", 0.001)}, "long", 2, shortest=0.01
    )
    assert count["short"] > 2 * count["long"]
    assert measured["short"]["ms"] == pytest.approx(1)
    assert measured["short"]["ratio"] == pytest.approx(0.05)


def test_on_a_gpu_its_own_events_are_the_clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self) -> None:
            self.at = clock()

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, end: "Event") -> float:
            return 1000 * (end.at - self.at)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    calls = {"a": lambda: clock.sleep(0.001), "b": lambda: clock.sleep(0.004)}
    measured = measure_calls(calls, "a", 3, device="cuda")
    assert measured["a"]["ratio"] == 1
    assert measured["b"]["ratio"] == pytest.approx(4)
    assert measured["b"]["ms"] == pytest.approx(4)


def test_the_clock_of_the_cpu_may_be_chosen(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLOCKS["cpu"] is time.process_time
    cpu = Clock()
    monkeypatch.setitem(CLOCKS, "cpu", cpu)

    def call() -> None:
        clock.sleep(0.01)
        cpu.sleep(0.001)

    calls = {"half asleep": call}
    assert measure_calls(calls, "half asleep", 3, clock="cpu")["half asleep"]["ms"] == pytest.approx(1)
    assert measure_calls(calls, "half asleep", 3)["half asleep"]["ms"] == pytest.approx(10)
