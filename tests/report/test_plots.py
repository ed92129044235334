"""What the plots show: nothing is cut, every seed has its dot, the efficient arms are joined."""

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from foveate.report import axes
from foveate.report.cost_plot import front, gain_against_cost
from foveate.report.forest_plot import forest
from foveate.report.plots import changed, plots, side
from foveate.report.pointing_game_plot import pointing_game, rows
from foveate.report.results_table import also
from foveate.report.svg import Drawing
from foveate.report.training_plots import curves, epochs, one_epoch
from report import records

SVG = "{http://www.w3.org/2000/svg}"
WIDTHS = (axes.WIDE, axes.NARROW)


def texts(plot: Drawing) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(plot.inline).iter(f"{SVG}text")]


def spans(plot: Drawing, colour: str, width: float) -> list[tuple[float, float]]:
    """The left and right ends of the horizontal lines with a colour class and a stroke width."""
    found = []
    for path in ET.fromstring(plot.inline).iter(f"{SVG}path"):
        if path.get("class") == f"s-{colour}" and float(path.get("stroke-width", 0)) == width:
            xs = [float(x) for x in re.findall(r"[ML] ([-\d.]+) ", path.get("d", ""))]
            found.append((min(xs), max(xs)))
    return found


def marks(plot: Drawing) -> int:
    """The number of markers in a plot."""
    return sum(1 for _ in ET.fromstring(plot.inline).iter(f"{SVG}use"))


def box(plot: Drawing) -> float:
    return float(ET.fromstring(plot.inline).get("viewBox", "").split()[2])


@pytest.mark.parametrize("width", WIDTHS)
def test_no_interval_is_cut(width: int) -> None:
    record = records.collapsed()
    plot = forest(record["arms"], width)
    assert plot is not None
    ((left, right),) = spans(plot, "hurts", 2.2)
    ((wide_left, wide_right),) = [span for span in spans(plot, "calm", 2.2) if span[1] - span[0] > 1.5 * (right - left)]
    scale = (right - left) / 16  # of the interval from -78 to -62
    assert (wide_right - wide_left) / scale == pytest.approx(66, abs=0.5)
    assert (wide_left - left) / scale == pytest.approx(78 - 31, abs=0.5)
    assert 0 < left < wide_right < box(plot)
    assert not {"<", ">"} & set(texts(plot))


def test_arms_that_a_large_one_would_flatten_have_a_second_plot() -> None:
    record = records.collapsed()
    for arm in record["arms"]:
        arm["curves"] = {}
    figures = plots(record)
    assert [arm["slug"] for arm in figures.near] == [
        arm["slug"] for arm in record["arms"][1:] if arm not in record["arms"][5:7]
    ]
    assert [wide.name for wide, _ in figures.intervals] == ["intervals", "intervals-near"]
    assert [wide.name for wide, _ in figures.cost] == ["cost", "cost-near"]
    assert figures.curves == []


@pytest.mark.parametrize(
    ("reaches", "near"),
    [
        ([1.0, 1.1, 1.2], []),
        ([1.0, 1.1, 80.0], [1.0, 1.1]),
        ([1.0, 80.0], [1.0]),
        ([1.0, 2.9, 8.0], []),
        ([0.01, 0.02, 0.2], []),
    ],
)
def test_an_arm_is_far_if_it_reaches_three_times_as_far_as_the_next(reaches: list[float], near: list[float]) -> None:
    arms = [{"difference": {"estimate": 0.0, "low": -reach, "high": reach}} for reach in reaches]
    assert [arm["difference"]["high"] for arm in axes.near(arms)] == near


@pytest.mark.parametrize("width", WIDTHS)
def test_every_seed_has_its_dot_at_its_own_difference(width: int) -> None:
    record = records.results(arms=4, seeds=5)
    plot, bare = forest(record["arms"], width), forest([{**arm, "scores": {}} for arm in record["arms"]], width)
    assert plot is not None
    assert bare is not None
    assert marks(plot) - marks(bare) == 3 * 5
    host, other = record["arms"][0]["scores"], record["arms"][2]["scores"]
    assert axes.gaps(record["arms"][2], record["arms"]) == [
        pytest.approx(100 * (other[seed] - host[seed])) for seed in host
    ]


def test_the_dots_of_another_measure_are_not_those_of_the_first() -> None:
    record = records.detection()
    for judged in record["also"]["mAP"]["arms"].values():
        del judged["scores"]
    assert all(axes.gaps(arm, also(record)["mAP"]) == [] for arm in also(record)["mAP"])


def point(ratio: float, gain: float) -> dict[str, Any]:
    return {"verdict": "helps", "difference": {"estimate": gain}, "cost": {"latency": {"ratio": ratio}}}


def test_the_efficient_arms_are_those_that_no_other_beats() -> None:
    host = {"verdict": "baseline"}
    slow_and_best, good, beaten, faster, same = (
        point(1.5, 3.0),
        point(1.1, 2.0),
        point(1.2, 1.9),
        point(0.9, -1.0),
        point(1.1, 1.0),
    )
    assert front([slow_and_best, beaten, host, good, same, faster]) == [faster, host, good, slow_and_best]
    assert front([host, point(1.3, -2.0)]) == [host]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_cost_plot_names_every_arm_and_joins_the_efficient(width: int) -> None:
    record = records.results()
    plot = gain_against_cost(record["arms"], width)
    assert plot is not None
    assert {arm["label"] for arm in record["arms"]} <= set(texts(plot))
    assert plot.label.endswith("Efficient: No attention, Control (1×1 pair), SE, identity start, CBAM, identity start")
    near = gain_against_cost(record["arms"], width, shown=[record["arms"][4], record["arms"][7]])
    assert near is not None
    assert {"4", "7"} <= set(texts(near))
    assert not {"1", "2"} & set(texts(near))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_run_of_one_epoch_has_a_dot_for_each_seed(width: int) -> None:
    record = records.one_epoch()
    assert epochs(record["arms"]) == 1
    plot = one_epoch(record["arms"], width, "val_score", "Validation accuracy after the epoch, %")
    assert plot is not None
    assert marks(plot) == 8 * 3
    assert "Validation accuracy after the epoch, %" in texts(plot)
    figures = plots(record)
    assert [wide.name for wide, _ in figures.epoch] == ["epoch-val-score", "epoch-train-loss"]
    assert figures.curves == []


def test_a_curve_of_one_point_among_longer_ones_is_a_mark() -> None:
    record = records.results(arms=2, seeds=2, epochs=5)
    full = sum(map(marks, curves(record["arms"])))
    record["arms"][1]["curves"]["0"] = record["arms"][1]["curves"]["0"][:1]
    assert sum(map(marks, curves(record["arms"]))) == full + 3  # the score and both losses


def test_losses_are_drawn_below_the_scores() -> None:
    for plot in curves(records.results(arms=3, seeds=2, epochs=4)["arms"]):
        assert {"Validation accuracy, %", "Loss: training solid, validation dotted", "Epoch"} <= set(texts(plot))


def test_losses_of_several_magnitudes_have_plain_numbers_on_their_axis() -> None:
    record = records.results(arms=2, seeds=1, epochs=4)
    for history in record["arms"][1]["curves"].values():
        history[-1]["train_loss"] = 0.002
    found = texts(curves(record["arms"])[1])
    assert {"0.01", "0.1", "1"} <= set(found)
    assert not [text for text in found if "$" in text]


@pytest.mark.parametrize("draw", [forest, gain_against_cost, pointing_game])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_axis_has_a_title(draw: Callable[..., Drawing | None], width: int) -> None:
    plot = draw(records.results()["arms"], width)
    assert plot is not None
    titles = {
        forest: {"Difference in accuracy from the baseline, points"},
        gain_against_cost: {"Measured latency, ratio to the plain model", "Points gained"},
        pointing_game: {"Share inside the true boxes"},
    }
    assert titles[draw] <= set(texts(plot))


def test_gates_of_one_kind_are_grouped() -> None:
    assert [kind for _, kind, _ in rows(records.results()["arms"])] == [
        "spatial",
        "spatial",
        "spatial",
        "row",
        "column",
    ]


@pytest.mark.parametrize("draw", [forest, gain_against_cost])
def test_a_label_is_cut_only_if_it_does_not_fit(draw: Callable[..., Drawing | None]) -> None:
    record = records.results(arms=3)
    name = "CoordinateAttention (reduction=16, identity start)"
    record["arms"][1]["label"], record["arms"][2]["label"] = name, "W" * 300
    plot = draw(record["arms"], axes.WIDE)
    assert plot is not None
    assert name in texts(plot)
    (cut,) = [text for text in texts(plot) if text.startswith("WW")]
    assert 15 < len(cut) < 60
    assert cut.endswith("…")


def test_the_classes_that_change_most_are_drawn_for_the_best_arm() -> None:
    record = records.results(arms=5, seeds=2, epochs=1)
    assert [row["label"] for row in changed(record)] == list("0123456789")
    gains = [one["arms"]["cbam-identity__residual"]["estimate"] for one in record["classes"]]
    assert [row["difference"]["estimate"] for row in changed(record)] == gains
    record["classes"] = [{**record["classes"][k % 10], "name": f"kind {k}"} for k in range(100)]
    record["data"]["classes"] = [one["name"] for one in record["classes"]]
    assert len(changed(record)) == 24
    assert min(abs(row["difference"]["estimate"]) for row in changed(record)) >= sorted(map(abs, gains))[7]
    assert plots(record).confusion == []


def test_a_class_is_judged_by_its_interval() -> None:
    assert [side({"low": low, "high": low + 2}) for low in (0.1, -1.0, -2.1)] == ["helps", "undecided", "hurts"]
