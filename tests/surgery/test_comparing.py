"""`compare`: the costs are those of the plan, the order is that of the predicted times, and nothing changes."""

import statistics
import time

import numpy as np
import pytest
import torch
from scipy.stats import rankdata
from torch import nn

from foveate import compare, kernels
from foveate.bind.torch.attention import attention
from foveate.errors import UsageError
from foveate.mechanisms import built_in, create
from foveate.speed import MODULE, Speed, predict
from foveate.surgery import attach, plan
from foveate.torch_utils import machine
from foveate.torch_utils.machine import measure_speed
from mechanisms.own import Pixel
from surgery import hosts
from surgery.se_hosts import Block

SPEED = Speed(call=3e-6, bytes=5e10, macs=4e10, scalar=6e8)


@pytest.fixture
def known_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveate.surgery.torch.comparing.measure_speed", lambda _: SPEED)


@pytest.mark.usefixtures("known_speed")
def test_every_mechanism_is_compared_and_costs_what_its_plan_says() -> None:
    host = hosts.ResNet()
    state = torch.get_rng_state()
    found = compare(host, example=hosts.SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    assert {each.mechanism.name for each in found} == set(built_in())
    fitting = [each for each in found if each.plan]
    assert found[: len(fitting)] == fitting
    assert [each.seconds for each in fitting] == sorted(each.seconds for each in fitting)
    assert all(each.reason for each in found[len(fitting) :])
    for each in fitting:
        if each.mechanism.name in ("eca", "spatial", "cross"):
            assert each.plan == plan(host, each.mechanism, example=hosts.SHAPE)


@pytest.mark.usefixtures("known_speed")
def test_mechanisms_of_any_kind_without_an_identity_start_and_of_your_own() -> None:
    found = compare(hosts.ResNet(), ["se", create("cross", activation="relu"), Pixel], "stage", example=hosts.SHAPE)
    assert {each.mechanism.name: each.plan.start for each in found if each.plan} == {
        "pixel": "identity",
        "se": "identity",
        "cross": "paper",
    }
    assert str(found[-1]).startswith("cross: ")
    assert str(found[-1]).endswith(" ms")


@pytest.mark.usefixtures("known_speed")
def test_those_that_need_rows_and_columns_do_not_fit_other_networks() -> None:
    sequences = nn.Sequential(nn.Conv1d(3, 16, 3), nn.BatchNorm1d(16))
    state = torch.get_rng_state()
    found = compare(sequences, ["spatial", "se"], "1", example=(2, 3, 32))
    assert torch.equal(torch.get_rng_state(), state)
    assert [bool(each.plan) for each in found] == [True, False]
    assert str(found[1]).startswith("spatial: needs a feature map (N, 16, H, W)")
    changing = compare(hosts.ResNet(), [create("residual_cbam", out_channels=4)], example=hosts.SHAPE)
    assert "whose shape may change" in changing[0].reason


@pytest.mark.usefixtures("known_speed")
def test_sites_that_cannot_be_used_are_refused() -> None:
    host = hosts.ResNet()
    attach(host, "eca", example=hosts.SHAPE)
    with pytest.raises(UsageError, match="a site without attention"):
        compare(host, example=hosts.SHAPE)


@pytest.mark.usefixtures("known_speed")
def test_what_replaces_modules_is_counted_at_their_places() -> None:
    host = hosts.ResNet(Block)
    found = compare(host, ["eca", "spatial"], "layer1", example=hosts.SHAPE, replace="SqueezeExcite")
    assert len(found) == 2
    for each in found:
        wanted = plan(host, each.mechanism, "layer1", example=hosts.SHAPE, replace="SqueezeExcite")
        assert each.plan == wanted
        assert wanted.removed.parameters > 0
    with pytest.raises(UsageError, match="modules to replace that return a map"):
        compare(host, example=hosts.SHAPE, replace="Linear")


def test_the_time_is_the_sum_over_the_operations() -> None:
    shape = (1, 16, 10, 10)  # mean, two convolutions of one position, sigmoid, relu, product
    moved = [4 * n for n in (1616, 16 + 1 + 17, 2, 1 + 16 + 32, 1600 + 16 + 1600)]
    seconds = (MODULE + len(moved) + 1) * SPEED.call + sum(moved) / SPEED.bytes + 16 / SPEED.scalar
    assert predict(create("se"), SPEED, shape).seconds == pytest.approx(seconds)
    slow = Speed(0.0, 1e30, 1000.0, 1e30)
    assert predict(create("se"), slow, shape).seconds == pytest.approx(32 / 1000)

    loops = Speed(0.0, 1e30, 1e30, 1000.0)
    assert predict(create("se"), loops, shape).seconds == pytest.approx(16 / 1000)  # its sigmoid
    for name, exponentials in (("large_kernel", 0), ("caa", 3)):  # a dilated depthwise convolution, a mean over windows
        assert predict(create(name), loops, shape).seconds == pytest.approx((49 + exponentials) * 1600 / 1000)


def test_a_convolution_to_few_channels_begins_slowly() -> None:
    calls = Speed(1.0, 1e30, 1e30, 1e30)  # channels' mean and maximum, concat, 12 for the convolution, norm, gate (2)
    assert predict(create("spatial"), calls, (1, 16, 10, 10)).seconds == pytest.approx(MODULE + 3 + 12 + 1 + 2)


def test_a_kernel_takes_half_the_time_but_moves_the_map() -> None:
    small, large = (1, 16, 10, 10), (8, 64, 100, 100)
    assert predict(create("cbam"), SPEED, small, kernel=True).seconds < predict(create("cbam"), SPEED, small).seconds
    least = MODULE * SPEED.call + 12 * 8 * 64 * 100 * 100 / SPEED.bytes
    assert predict(create("eca"), SPEED, large, kernel=True).seconds >= least
    with kernels.using("reference"):
        assert not any(each.kernel for each in compare(hosts.ResNet(), ["se", "cbam"], example=hosts.SHAPE))


def test_the_speed_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SECONDS", 0.002)
    found = measure_speed()
    assert 1e-8 < found.call < 1
    assert 1e6 < found.bytes < 1e15
    assert 1e6 < found.macs < 1e15


@pytest.mark.slow
def test_the_predicted_order_is_that_of_measured_times() -> None:
    shape, speed = (1, 128, 28, 28), measure_speed()
    x = torch.rand(shape)
    predicted, measured = [], []
    for kind in built_in().values():
        try:
            module = attention(kind, shape[1]).eval()
            predicted.append(predict(kind(), speed, shape).seconds)
        except UsageError:
            continue
        with torch.inference_mode(), kernels.using("reference"):
            measured.append(min(statistics.median(_times(module, x)) for _ in range(3)))
    correlation = np.corrcoef(rankdata(predicted), rankdata(measured))[0, 1]
    assert correlation > 0.8, correlation
    ratios = [p / m for p, m in zip(predicted, measured, strict=True)]
    assert 0.2 < statistics.median(ratios) < 3, ratios


def _times(module: nn.Module, x: torch.Tensor) -> list[float]:
    times = []
    for _ in range(8):
        began = time.perf_counter()
        module(x)
        times.append(time.perf_counter() - began)
    return times
