"""Planted data: the content of the images, what a host without positions can score, and that the right gate helps."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from scipy.optimize import Bounds, LinearConstraint, milp

import foveate
from foveate.data import PlantedOptions, open_data, planted_kind
from foveate.data.planted import (
    FEW,
    KINDS,
    LEFT,
    MANY,
    MIDDLE,
    RIGHT,
    SIDE,
    SPREAD,
    PlantedImages,
    PlantedKind,
    make_planted,
)
from foveate.errors import UsageError
from foveate.experiment.arms import Control
from foveate.models import build
from foveate.parts import Start

BRIGHT = 128
COUNT = PlantedOptions("what").train
CASES = [(named, many) for named in range(3) for many in itertools.product((0, 1), repeat=3)]  # equally likely


def made(kind: PlantedKind, seed: int = 0) -> PlantedImages:
    return make_planted(PlantedOptions(kind, seed=seed))["train"]


def hues(pictures: PlantedImages) -> np.ndarray:
    """Return which of red, green and blue are bright in each pixel, as one number from 0 to 7."""
    return ((pictures.images > BRIGHT) * np.array([1, 2, 4])).sum(-1)


def counts(flat: np.ndarray) -> np.ndarray:
    return np.stack([(flat == hue).sum((1, 2)) for hue in range(8)], 1)


def bag(images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Return the same pixels in other places."""
    order = torch.randperm(images[0, 0].numel(), generator=torch.Generator().manual_seed(seed))
    return images.flatten(2)[:, :, order].view_as(images)


def test_where_has_the_same_bag_of_pixels_for_every_class() -> None:
    found = counts(hues(made("where")))
    assert (found == [384 - 4, 4, 4, 4, 4, 0, 0, 4]).all()  # the background, red, green, yellow, blue and the cue


def test_where_an_oracle_gate_beside_the_cue_leaves_the_answer() -> None:
    pictures = made("where")
    flat = hues(pictures)
    near = np.stack([binary_dilation(one == 7, np.ones((3, 3)), iterations=3) for one in flat])
    seen = np.stack([((flat == hue) & near).sum((1, 2)) for hue in (1, 2, 4, 3)], 1)
    assert ((seen > 0).sum(1) == 1).all()  # no other item is as near
    assert (seen.argmax(1) == pictures.labels).all()
    top = flat[np.arange(len(flat)), pictures.boxes[:, 1], pictures.boxes[:, 0]]  # pyright: ignore[reportOptionalSubscript]
    assert (np.array([1, 2, 4, 3])[pictures.labels] == top).all()


def sides(pictures: PlantedImages) -> tuple[np.ndarray, np.ndarray]:
    """Return the colour of the left side, 0 to 2, and the number of dots of each of three hues on the right, (N, 3)."""
    flat = hues(pictures)
    colour, dots = counts(flat[:, :, :LEFT]), counts(flat[:, :, RIGHT:])
    assert set(map(tuple, colour)) == {
        tuple(LEFT * SIDE * (np.arange(8) == hue)) for hue in (6, 5, 3)
    }  # cyan, magenta, yellow
    assert not flat[:, :, LEFT:RIGHT].any()
    return (colour[:, [6, 5, 3]] > 0).argmax(1), dots[:, [1, 2, 4]]


def test_what_is_solved_by_a_gate_that_passes_only_the_named_hue() -> None:
    pictures = made("what")
    named, dots = sides(pictures)
    assert np.isin(dots, [FEW, MANY]).all()
    many = dots == MANY
    assert (many[np.arange(len(many)), named] == pictures.labels).all()
    assert abs(np.mean(many == pictures.labels[:, None]) - 2 / 3) < 0.03  # always the same hue, whatever the colour


def test_neither_is_solved_best_by_a_sum_over_pixels() -> None:
    hue = np.r_[np.zeros(FEW), np.ones(MANY + 1 - FEW)] / (MANY + 1 - FEW)
    likely = np.convolve(np.convolve(hue, hue), hue)  # the probability of each total number of dots
    large = (np.arange(len(likely))[:, None] > MIDDLE + np.arange(-SPREAD, SPREAD + 1)).mean(1)
    assert ((large > 0.5) == (np.arange(len(likely)) > MIDDLE)).all()
    most = (likely * np.maximum(large, 1 - large)).sum()
    assert most == pytest.approx(0.9721, abs=5e-5)
    pictures = made("neither")
    _, dots = sides(pictures)
    right = np.mean((dots.sum(1) > MIDDLE) == pictures.labels)
    assert abs(right - most) < 4 * np.sqrt(most * (1 - most) / len(dots))


def test_no_spatial_gate_sees_both_sides_of_what() -> None:
    torch.manual_seed(0)
    model = build("pixelnet", 2)
    foveate.attach(model, "spatial", "features", example=(1, 3, SIDE, SIDE), start="paper")
    model.eval()
    image = open_data(Path("planted:what")).train[0][0][None].requires_grad_()
    gated = model.get_submodule("features")(model.get_submodule("pixels")(image))
    for column in range(SIDE):
        (slope,) = torch.autograd.grad(gated[..., column].sum(), image, retain_graph=True)
        seen = slope.abs().sum((0, 1, 2)) > 0
        assert seen[column]
        assert not (seen[:LEFT].any() and seen[RIGHT:].any()), column


def best(of_dots: int) -> int:
    """Return how many of the 24 cases u(colour) + v(dots) can get right.

    With `of_dots` 3, v is a sum of one term for each hue; with 8, v is any function.
    """
    terms = np.zeros((len(CASES), 3 + of_dots))
    for row, (named, many) in zip(terms, CASES, strict=True):
        row[named] = 1
        row[3:] = 2 * np.array(many) - 1 if of_dots == 3 else np.arange(8) == many[0] + 2 * many[1] + 4 * many[2]
    sign, large = np.array([2 * many[named] - 1 for named, many in CASES]), 1000
    rows = np.hstack([sign[:, None] * terms, -large * np.eye(len(CASES))])
    free, cases = terms.shape[1], len(CASES)
    cost, whole = np.r_[np.zeros(free), -np.ones(cases)], np.r_[np.zeros(free), np.ones(cases)]
    bounds = Bounds(np.r_[-50 * np.ones(free), np.zeros(cases)], np.r_[50 * np.ones(free), np.ones(cases)])
    found = milp(cost, constraints=LinearConstraint(rows, lb=1 - large), integrality=whole, bounds=bounds)
    return round(-found.fun)


def test_what_limits_a_score_with_a_term_for_each_side() -> None:
    assert best(of_dots=3) == 19  # the plain host and the control, apart from the noise
    assert best(of_dots=8) == 20  # the same with their noise, and a spatial gate


def busy_control(channels: int) -> Control:
    control = Control(channels, 8)
    torch.nn.init.normal_(control.expand.weight)  # 0 at first, without any effect
    return control


def test_pixelnet_ignores_positions_except_with_a_spatial_gate() -> None:
    images = torch.stack([open_data(Path("planted:where")).train[k][0] for k in range(4)])
    arms: list[tuple[Any, Start, bool]] = [
        (None, "identity", True),
        (busy_control, "identity", True),
        ("se", "paper", True),
        ("eca", "paper", True),
        ("spatial", "paper", False),
    ]
    for attention, start, blind in arms:
        torch.manual_seed(0)
        model = build("pixelnet", 4)
        if attention:
            foveate.attach(model, attention, "features", example=(1, 3, SIDE, SIDE), start=start)
        model.eval()
        with torch.no_grad():
            assert torch.allclose(model(images), model(bag(images)), atol=1e-5) == blind, attention


def test_pictures_follow_from_the_seed_on_every_machine() -> None:
    prints = {kind: open_data(Path(f"planted:{kind}")).fingerprint for kind in KINDS}
    assert {kind: digest[:12] for kind, digest in prints.items()} == PRINTS
    assert open_data(Path("planted:what"), planted=PlantedOptions("what", seed=1)).fingerprint != prints["what"]


def test_arguments_that_do_not_fit_planted_data_are_refused() -> None:
    path = Path("planted:what")
    assert open_data(path, seed=1).fingerprint == open_data(path, planted=PlantedOptions("what", seed=1)).fingerprint
    with pytest.raises(UsageError, match="images are 20 x 20"):
        open_data(path, planted=PlantedOptions("where"))
    with pytest.raises(UsageError, match="imgsz=64"):
        open_data(path, imgsz=64)
    with pytest.raises(UsageError, match="seed"):
        PlantedOptions("what", seed=-1)


PRINTS = {"where": "89216825ac94", "what": "000e97ad4090", "neither": "d91fae6b0877"}


def test_a_kind_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"(?s)where, what, neither.*'were'.*where"):
        planted_kind("planted:were")
    assert planted_kind("photos") is None
    assert planted_kind(None) is None
