"""Compare the kernels' outputs, gradients and statistics with float64."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foveate import kernels
from kernels.cases import DEFAULTS, DRAWS, SUBJECTS, Layout, Subject, draw, faults, steps
from thinned import thinned

pytestmark = pytest.mark.usefixtures("built")

Mode = tuple[Subject, bool]
Form = tuple[Layout, torch.dtype]
LAYOUTS: list[Layout] = ["nchw", "channels_last"]
DTYPES = [torch.float32, torch.bfloat16]


def modes(subjects: list[Subject]) -> dict[str, tuple[Subject, bool]]:
    """Return each subject in evaluation mode and, where it has a batch norm, in training mode."""
    normed = [
        subject
        for subject in subjects
        if any(isinstance(layer, nn.BatchNorm2d) for layer in subject.module(8).modules())
    ]
    return {f"{one}-eval": (one, False) for one in subjects} | {f"{one}-train": (one, True) for one in normed}


FORMS = list(product(LAYOUTS, DTYPES))

LARGEST = 8_000_000  # values; larger maps only repeat the same blocks, and need gigabytes in float64
FEWEST = 16  # values of a batch norm; fewer magnify rounding errors too much, and have a separate test

# (N, C, H, W): every height and width with every channel count that keeps the map small, and both with every N.
SHAPES = [
    (1, 1, 1, 1),
    (3, 3, 1, 1),
    (17, 8, 1, 1),
    (3, 1000, 1, 1),
    (17, 2048, 1, 1),
    (17, 1, 1, 6),
    (1, 8, 1, 6),
    (3, 24, 1, 6),
    (17, 1000, 1, 6),
    (3, 2048, 1, 6),
    (3, 1, 7, 7),
    (17, 3, 7, 7),
    (1, 24, 7, 7),
    (1, 2048, 7, 7),
    (1, 3, 9, 5),
    (17, 24, 9, 5),
    (1, 1000, 9, 5),
    (3, 8, 63, 60),
    (1, 1, 63, 60),
    (17, 3, 63, 60),
]
EVERY_SHAPE = [
    (n, c, h, w)
    for h, w in ((1, 1), (1, 6), (7, 7), (9, 5), (63, 60))
    for c in (1, 3, 8, 24, 1000, 2048)
    for n in (1, 3, 17)
    if n * c * h * w < LARGEST
]


def check(
    subject: Subject, shape: tuple[int, ...], layout: Layout, dtype: torch.dtype, training: bool, start: Any = "paper"
) -> None:
    training = training and subject.can_train(shape, FEWEST)
    module = subject.module(shape[1], start=start, dtype=dtype).train(training)
    draws = DRAWS if math.prod(shape) < LARGEST / 4 else 1
    assert faults(steps(module, lambda seed: draw(*shape, dtype=dtype, layout=layout, seed=seed), draws)) == []


@thinned(2, mode=modes(SUBJECTS), form=FORMS, start=["paper", "identity"])
def test_every_option(mode: Mode, form: Form, start: Any) -> None:
    check(mode[0], (3, 24, 9, 5), *form, mode[1], start)


@thinned(6, mode=modes(DEFAULTS), form=FORMS, shape=SHAPES)
def test_ugly_shapes(mode: Mode, form: Form, shape: tuple[int, ...]) -> None:
    check(mode[0], shape, *form, mode[1])


@thinned(2, mode=modes(DEFAULTS), form=FORMS)
def test_features_away_from_zero(mode: Mode, form: Form) -> None:
    (subject, training), (layout, dtype) = mode, form

    def inputs(seed: int) -> Tensor:
        return draw(3, 24, 9, 5, dtype=dtype, layout=layout, seed=seed) + (1 if seed < 100 else 0)

    assert faults(steps(subject.module(24, dtype=dtype).train(training), inputs)) == []


@pytest.mark.slow
@pytest.mark.parametrize("shape", EVERY_SHAPE, ids=str)
@thinned(1, mode=modes(DEFAULTS), form=FORMS)
def test_every_shape(mode: Mode, form: Form, shape: tuple[int, ...]) -> None:
    check(mode[0], shape, *form, mode[1])


@thinned(
    2,
    subject=map(Subject, ("spatial", "cbam", "coordinate")),
    form=FORMS,
    shape=[(2, 8, 1, 1), (1, 8, 1, 2), (3, 24, 1, 1), (1, 8, 1, 6)],
)
def test_a_batch_norm_of_few_values(subject: Subject, form: Form, shape: tuple[int, ...]) -> None:
    layout, dtype = form
    found = steps(
        subject.module(shape[1], dtype=dtype), lambda seed: draw(*shape, dtype=dtype, layout=layout, seed=seed)
    )
    assert faults(found) == []


@pytest.mark.parametrize("subject", [Subject("spatial"), Subject("cbam")], ids=str)
def test_a_batch_norm_of_one_value_fails_as_without_kernels(subject: Subject) -> None:
    with kernels.using(None), pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        subject.module(8)(draw(1, 8, 1, 1))
