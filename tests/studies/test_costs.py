import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from foveate.experiment.latency import Ratio, compare_timings, time_rounds
from foveate.models import build
from foveate.studies.costs import Footprint, measure_costs
from foveate.surgery import attach
from work import Clock


def drifting(rng: np.random.Generator, rounds: int, *factors: float) -> list[NDArray[np.float64]]:
    """Return timings of several models in the same rounds: with slow drift, noise of each call, and interruptions."""
    drift = np.exp(np.cumsum(rng.normal(0, 0.02, rounds)))
    noise = np.exp(rng.normal(0, 0.03, (len(factors), rounds)))
    interrupted = 1 + 5 * (rng.random((len(factors), rounds)) < 0.03)
    return [0.01 * factor * drift * noise[k] * interrupted[k] for k, factor in enumerate(factors)]


def test_a_model_is_not_slower_than_itself_and_a_slower_one_is() -> None:
    rng = np.random.default_rng(1)
    ratios = [
        (compare_timings(a, same), compare_timings(a, slower))
        for a, same, slower in (drifting(rng, 40, 1, 1, 1.2) for _ in range(500))
    ]
    assert np.mean([same.distinguishable for same, _ in ratios]) <= 0.01
    assert np.mean([slower.distinguishable for _, slower in ratios]) >= 0.99
    assert np.mean([slower.low <= 1.2 <= slower.high for _, slower in ratios]) >= 0.99


def test_timings_from_different_rounds_cannot_show_the_difference() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for _ in range(50):
        a, b = drifting(rng, 40, 1, 1.2)
        widths.append((compare_timings(a, b).high, compare_timings(a, rng.permutation(b)).high))
    assert np.median([shuffled for _, shuffled in widths]) > np.median([paired for paired, _ in widths])


def test_a_ratio_says_whether_it_is_one() -> None:
    assert Ratio(1.1, 1.02, 1.2).to_dict() == {"ratio": 1.1, "low": 1.02, "high": 1.2, "distinguishable": True}
    assert not Ratio(1.1, 0.9, 1.2).distinguishable
    assert Ratio(0.9, 0.8, 0.95).distinguishable


def test_each_timed_call_follows_one_of_its_own() -> None:
    order: list[str] = []
    timings = time_rounds({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0, least=4)
    assert {name: len(values) for name, values in timings.items()} == {"a": 4, "b": 4}
    rounds = ["".join(order[2 + 4 * k : 6 + 4 * k]) for k in range(4)]
    assert set(rounds) <= {"aabb", "bbaa"}
    assert all((values >= 0).all() for values in timings.values())


def test_rounds_stop_when_the_time_is_up() -> None:
    clock = Clock()
    timings = time_rounds({"a": lambda: clock.sleep(0.25)}, seconds=2, least=2, clock=clock)
    assert timings["a"].tolist() == [0.25] * 4  # a round takes two calls


def net(wide: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, wide, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(wide, 4, 1))


def test_counts_follow_the_formulas() -> None:
    costs = measure_costs({"plain": net(), "wide": net(16)}, (3, 6, 5), seconds=0, batch=2)
    weights = 3 * 8 * 9 + 8 * 4 + 4
    assert costs["plain"]["parameters"] == weights
    assert costs["plain"]["macs"] == (3 * 8 * 9 + 8 * 4) * 30
    assert costs["plain"]["elementwise"] == 8 * 30
    assert costs["plain"]["bytes"] == 4 * (3 * 30 + 3 * 8 * 9 + 8 * 30 + 2 * 8 * 30 + 8 * 30 + 36 + 4 * 30)
    assert costs["wide"]["added_parameters"] == 3 * 8 * 9 + 8 * 4
    assert costs["plain"]["added_parameters"] == 0
    assert costs["plain"]["latency"]["ratio"] == 1
    assert not costs["plain"]["latency"]["distinguishable"]
    assert costs["plain"]["latency"]["batch"] == 2


@pytest.mark.parametrize("name", ["se", "channel", "spatial", "cbam", "eca", "coordinate"])
def test_attention_is_counted_by_its_formulas_also_where_a_kernel_runs_it(name: str) -> None:
    host = build("resnet8", 10).eval()
    model = copy.deepcopy(host)
    added = attach(model, name, example=(1, 3, 96, 96)).to_dict()
    costs = measure_costs({"host": host, "model": model}, (3, 96, 96), seconds=0, batch=2)
    more = {what: costs["model"][what] - costs["host"][what] for what in ("parameters", "macs", "elementwise", "bytes")}
    assert (more["parameters"], more["macs"]) == (added["parameters"], added["macs"])
    # the count includes the arithmetic of the identity start, on maps with fewer channels than the site's
    assert more["elementwise"] == pytest.approx(added["elementwise"], rel=0.1)
    assert more["bytes"] == pytest.approx(added["bytes"], rel=0.1)


def test_peak_memory_is_that_of_tensors_alive_together() -> None:
    x = torch.zeros(1000)
    with Footprint(x) as footprint:
        for _ in range(5):
            y = x + 1
            y = y.view(10, 100)  # a view takes no memory
            z = y * 2
            del y, z
    assert footprint.peak == 4 * 3000
    assert footprint.now == 4 * 1000


def test_the_number_of_threads_is_restored() -> None:
    before = torch.get_num_threads()
    measure_costs({"plain": net()}, (3, 4, 4), seconds=0, threads=before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.reliability(26)
def test_real_latencies_of_a_model_against_itself_and_against_a_slower_one(tried: Any) -> None:
    """RELIABILITY row 26; it needs an idle machine."""
    model = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(10))).eval()
    slower = nn.Sequential(*copy.deepcopy(model), *(nn.Conv2d(16, 16, 3, padding=1) for _ in range(2)))
    models = {"plain": model, "itself": copy.deepcopy(model), "slower": slower}
    found = [measure_costs(models, (16, 32, 32), seconds=1.0, threads=1) for _ in range(100)]
    assert sum(one["itself"]["latency"]["low"] <= 1 <= one["itself"]["latency"]["high"] for one in found) >= 95
    assert sum(one["slower"]["latency"]["low"] > 1 for one in found) >= 90
    tried(len(found))
