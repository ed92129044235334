"""Compare costs with formulas that were derived by hand from the papers."""

import math
from typing import Any

import pytest

from foveate.cost import Cost, measure
from foveate.facts import facts
from foveate.mechanisms import create, names

N, H, W = 2, 7, 5
P = H * W
WIDTHS = [16, 32, 40, 64, 256]


def formula(name: str, channels: int, height: int, width: int) -> tuple[int, int]:
    """Return the parameters and multiply-adds by the closed formulas of the TOML at default options."""
    known: dict[str, Any] = {"C": channels, "N": N, "H": height, "W": width, "math": math}
    for variable, expression in facts(name)["formula"].items():
        known[variable] = eval(expression, known)  # a file of ours
    return known["parameters"], known["macs"]


def mlp(c: int, r: float, bias: bool) -> tuple[int, int]:
    """Return the parameters of a two-layer MLP C -> C/r -> C, and the multiply-adds of one pass over N vectors."""
    hidden = int(c / r)
    return 2 * c * hidden + bias * (hidden + c), 2 * N * c * hidden


@pytest.mark.parametrize("place", range(len(WIDTHS)))
@pytest.mark.parametrize("name", names())
@pytest.mark.reliability(4)
def test_parameters_and_multiply_adds(name: str, place: int) -> None:
    channels = facts(name).get("test", {}).get("widths", WIDTHS)[place]
    height, width = (size + facts(name).get("smallest", 1) - 1 for size in (H, W))
    cost = measure(create(name), (N, channels, height, width))
    assert (cost.parameters, cost.macs) == formula(name, channels, height, width)


@pytest.mark.parametrize("channels", WIDTHS)
def test_se_without_bias(channels: int) -> None:
    cost = measure(create("se", bias=False, reduction=4), (N, channels, H, W))
    assert (cost.parameters, cost.macs) == mlp(channels, 4, False)


@pytest.mark.parametrize("channels", WIDTHS)
def test_element_wise_work_and_traffic_of_se(channels: int) -> None:
    c, hidden, features = channels, channels // 16, N * channels * P
    operations = features + N * hidden + N * c + features  # mean, relu, sigmoid, scale
    traffic = (
        (features + N * c)  # mean
        + (N * c + N * hidden + c * hidden + hidden)  # reduce, its weights and biases
        + (N * hidden + N * hidden)  # relu
        + (N * hidden + N * c + c * hidden + c)  # expand
        + (N * c + N * c)  # sigmoid
        + (features + N * c + features)  # scale
    )
    assert measure(create("se"), (N, c, H, W)) == Cost(
        2 * c * hidden + hidden + c, 2 * N * c * hidden, operations, 4 * traffic
    )


def test_the_identity_start_costs_no_parameter_and_one_operation_an_entry_of_the_gate() -> None:
    paper, identity = (measure(create("se"), (N, 32, H, W), start=start) for start in ("paper", "identity"))
    assert (identity.parameters - paper.parameters, identity.elementwise - paper.elementwise) == (0, N * 32)


@pytest.mark.parametrize(
    ("name", "options", "published"),
    [("se", {}, 2_530_992), ("se", {"bias": False}, 2_514_944), ("cbam", {}, 28_089_624 - 25_557_032)],
    ids=["SE", "SE without bias", "CBAM"],
)
def test_what_a_resnet50_gains_is_as_published(name: str, options: dict[str, bool], published: int) -> None:
    blocks = {256: 3, 512: 4, 1024: 6, 2048: 3}
    assert (
        sum(count * measure(create(name, **options), (1, c, 7, 7)).parameters for c, count in blocks.items())
        == published
    )


def test_a_released_eca_net50_has_80_parameters() -> None:
    blocks = [(256, 3, 3), (512, 4, 5), (1024, 6, 5), (2048, 3, 7)]
    assert sum(count * measure(create("eca", kernel_size=k), (1, c, 7, 7)).parameters for c, count, k in blocks) == 80


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3, 4) + Cost(10, 20, 30, 40) == Cost(11, 22, 33, 44)


def test_the_work_grows_with_the_batch_and_the_parameters_do_not() -> None:
    one, three = (measure(create("cbam"), (n, 32, H, W)) for n in (1, 3))
    assert (three.macs, three.elementwise, three.parameters) == (3 * one.macs, 3 * one.elementwise, one.parameters)
