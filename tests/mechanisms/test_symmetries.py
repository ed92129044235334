"""Mechanisms that must not depend on the order of positions, of channels or of rows, do not."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subjects import Subject
from tolerance import distance

Change = Callable[[Tensor, torch.Generator], Tensor]


def shuffle_positions(x: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(x[0, 0].numel(), generator=generator)
    return x.flatten(2)[:, :, order].reshape(x.shape)


def shuffle_channels(x: Tensor, generator: torch.Generator) -> Tensor:
    return x[:, torch.randperm(x.shape[1], generator=generator)]


def shuffle_rows(x: Tensor, generator: torch.Generator) -> Tensor:
    return x[:, :, torch.randperm(x.shape[2], generator=generator)]


def shuffle_columns(x: Tensor, generator: torch.Generator) -> Tensor:
    return x[..., torch.randperm(x.shape[3], generator=generator)]


HOLDS: list[tuple[str, Change]] = [
    *((name, shuffle_positions) for name in ("se", "channel", "eca", "cross")),
    ("spatial", shuffle_channels),
    ("coordinate", shuffle_rows),
    ("coordinate", shuffle_columns),
]
FAILS: list[tuple[str, Change]] = [
    ("spatial", shuffle_positions),
    ("cbam", shuffle_positions),
    ("eca", shuffle_channels),
    ("se", shuffle_channels),
    ("coordinate", shuffle_positions),
    ("residual_cbam", shuffle_rows),
]


def defect(name: str, change: Change, seed: int, size: tuple[int, int]) -> float:
    """Return how far the output of a changed input is from the changed output."""
    subject = Subject(name)
    (x,) = subject.inputs(2, *size, dtype=torch.float64, seed=seed)
    module = subject.module(dtype=torch.float64).eval()
    changed, expected = (change(tensor, torch.Generator().manual_seed(seed)) for tensor in (x, module(x)))
    return distance(module(changed), expected)


@pytest.mark.parametrize(("name", "change"), HOLDS)
def test_the_output_follows_the_input(name: str, change: Change) -> None:
    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 999), h=st.integers(1, 8), w=st.integers(1, 8))
    def holds(seed: int, h: int, w: int) -> None:
        assert defect(name, change, seed, (h, w)) < 1e-12

    holds()


@pytest.mark.parametrize(("name", "change"), FAILS)
def test_and_not_where_the_order_matters(name: str, change: Change) -> None:
    assert defect(name, change, 1, (5, 7)) > 1e-4
