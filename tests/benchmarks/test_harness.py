import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness import RESULTS, check, compare, interleave, provenance, summarise, write


class Clock:
    """A clock that stands still unless it is pushed."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, seconds: float) -> Any:
        def call() -> None:
            self.now += seconds

        return call


def record() -> dict[str, Any]:
    clock = Clock()
    calls = summarise(interleave({"plain": clock.takes(1), "slow": clock.takes(1.2)}, 4, clock=clock), "plain")
    return {"schema": 1, "name": "x", "rounds": 4, "provenance": provenance(1, 0.0), "results": [{"host": "h", "calls": calls}]}


def test_each_call_runs_once_a_round_in_changing_order() -> None:
    order: list[str] = []
    seconds = interleave({name: lambda name=name: order.append(name) for name in "abc"}, 20, warmup=1)
    rounds = ["".join(order[i : i + 3]) for i in range(3, len(order), 3)]
    assert order[:3] == ["a", "b", "c"]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 1
    assert {name: len(values) for name, values in seconds.items()} == {"a": 20, "b": 20, "c": 20}


def test_the_time_of_a_call_is_its_own() -> None:
    clock = Clock()
    seconds = interleave({"short": clock.takes(1.0), "long": clock.takes(3.0)}, 5, clock=clock)
    assert seconds == {"short": pytest.approx([1.0] * 5), "long": pytest.approx([3.0] * 5)}


def test_a_slow_spell_leaves_the_ratio_alone() -> None:
    spell = [1, 1, 10, 10, 1, 5.0]
    assert compare([1.5 * second for second in spell], spell) == pytest.approx({"ratio": 1.5, "low": 1.5, "high": 1.5})


def test_the_interval_is_the_order_statistics() -> None:
    ratios = np.random.default_rng(0).permutation(np.arange(1.0, 16))
    assert compare(ratios.tolist(), [1.0] * 15) == {"ratio": 8, "low": 4, "high": 12}  # Conover's table: ranks 4 and 12 of 15
    assert compare([3.0, 1.0, 2.0], [1.0] * 3) == {"ratio": 2, "low": 1, "high": 3}


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    drawn = [compare(rng.lognormal(0, 0.05, 15), rng.lognormal(0, 0.05, 15)) for _ in range(200)]
    covered = sum(one["low"] <= 1 <= one["high"] for one in drawn)
    assert 184 <= covered < 200


def test_a_slow_down_is_found() -> None:
    rng = np.random.default_rng(1)
    drawn = [compare(1.2 * rng.lognormal(0, 0.05, 15), rng.lognormal(0, 0.05, 15)) for _ in range(100)]
    assert sum(one["low"] > 1 for one in drawn) >= 95


def test_a_record_is_written_with_its_provenance(tmp_path: Path) -> None:
    write(record(), tmp_path / "x.json")
    again = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert check(again) == []
    assert again["provenance"]["versions"]["torch"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda r: r.update(schema=2), "schema"),
        (lambda r: r.pop("rounds"), "record.rounds"),
        (lambda r: r["provenance"].pop("commit"), "provenance.commit"),
        (lambda r: r["results"][0].pop("calls"), "no calls"),
        (lambda r: r["results"][0]["calls"]["slow"].update(ms="fast"), "ms"),
        (lambda r: r["results"][0]["calls"]["slow"].update(low=2.0), "outside its interval"),
    ],
)
def test_a_record_that_is_not_of_the_schema_is_refused(tmp_path: Path, spoil: Any, said: str) -> None:
    spoilt = record()
    spoil(spoilt)
    with pytest.raises(ValueError, match=said):
        write(spoilt, tmp_path / "x.json")
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_committed_record_is_of_the_schema(path: Path) -> None:
    assert check(json.loads(path.read_text(encoding="utf-8"))) == []
