import numpy as np
import pytest

from foveate.gates.colour import palette, place


@pytest.mark.parametrize(
    ("gate", "at"), [(0.0, 0.0), (0.75, 0.25), (1.0, 0.5), (1.25, 0.75), (2.0, 1.0), (3.7, 1.0), (-1.0, 0.0)]
)
def test_one_scale_around_1(gate: float, at: float) -> None:
    assert place([gate]) == pytest.approx([at])


def test_what_changes_less_than_a_percent_is_in_the_middle() -> None:
    assert (place([0.991, 0.999, 1.0, 1.001, 1.009]) == 0.5).all()
    below, above = place([0.985, 1.015])
    assert below < 0.45
    assert above > 0.55


def test_a_broken_gate_has_a_place_too() -> None:
    assert place([np.nan, np.inf, -np.inf]).tolist() == [0.5, 1.0, 0.0]


def test_the_scale_is_grey_in_the_middle_and_as_dark_at_both_ends() -> None:
    colours = palette(65).astype(float)
    assert np.ptp(colours[32]) < 20
    lightness = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness[:33]) > 0).all()
    assert (np.diff(lightness[32:]) < 0).all()
    assert abs(lightness[0] - lightness[-1]) < 15
    assert colours[0][2] > colours[0][0]
    assert colours[-1][0] > colours[-1][2]
