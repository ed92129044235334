from typing import Any

import numpy as np
import pytest
import torch

from foveate.errors import DataError
from foveate.training.batches import SeededBatches, plain_loader, share, training_loader


class Numbers:
    """A dataset of its own indices that records the epochs that are set."""

    def __init__(self, count: int):
        self.count, self.epochs = count, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


def order(seed: int, epoch: int, count: int = 50, batch: int = 8) -> list[list[int]]:
    batches = SeededBatches(range(count), batch, seed)
    batches.set_epoch(epoch)
    return [indices for _, indices in batches]


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    np.random.default_rng().random()
    assert order(3, 1) == order(3, 1)
    assert order(3, 1) != order(3, 2)
    assert order(3, 1) != order(4, 1)


def test_every_image_comes_at_most_once_an_epoch_and_batches_are_full() -> None:
    batches = order(0, 0)
    seen = [index for batch in batches for index in batch]
    assert [len(batch) for batch in batches] == [8] * 6
    assert len(set(seen)) == len(seen) == 48


def test_steps_count_the_batches_of_the_whole_run() -> None:
    batches = SeededBatches(range(20), 8, seed=0)
    batches.set_epoch(3)
    assert [step for step, _ in batches] == [6, 7]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.reliability(20)
def test_a_batch_is_made_with_its_step(workers: int) -> None:
    loader: Any = training_loader(
        Numbers(20), range(20), 8, seed=0, workers=workers, collate=lambda samples, step: (step, len(samples))
    )
    loader.batch_sampler.set_epoch(1)
    assert list(loader) == [(2, 8), (3, 8)]


def test_fewer_images_than_a_batch_make_one_batch() -> None:
    assert sorted(order(0, 0, count=5)[0]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("fraction", "kept"), [(1.0, 20), (0.5, 10), (0.001, 1)])
def test_a_fraction_is_a_fixed_subset(fraction: float, kept: int) -> None:
    assert len(set(share(20, fraction))) == kept
    assert share(20, fraction) == share(20, fraction)


def test_augmentations_differ_by_seed_and_epoch_and_are_drawn_before_the_first_batch() -> None:
    seen = []
    for seed in (0, 1):
        data = Numbers(16)
        loader: Any = training_loader(data, range(16), 8, seed)
        for epoch in (0, 1):
            loader.batch_sampler.set_epoch(epoch)
            next(iter(loader))
        seen += data.epochs
    assert len(set(seen)) == 4


@pytest.mark.parametrize("seed", [0, 10**14, 1_763_749_688_123_456_789, 2**63 - 1])
def test_a_seed_from_the_clock_is_a_seed(seed: int) -> None:
    data = Numbers(16)
    loader: Any = training_loader(data, range(16), 8, seed)
    for epoch in (0, 99_999):
        loader.batch_sampler.set_epoch(epoch)
        next(iter(loader))
    assert len(set(data.epochs)) == 2
    assert 0 <= min(data.epochs) <= max(data.epochs) < 2**63  # data sets hold it as int64


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.reliability(20)
def test_the_plain_loader_gives_every_image_in_order(workers: int) -> None:
    assert [batch.tolist() for batch in plain_loader(Numbers(5), 2, workers)] == [[0, 1], [2, 3], [4]]


class Clock:
    """A clock that moves only when a test calls `go`."""

    now = 0.0

    def go(self, seconds: float) -> None:
        self.now += seconds


def test_the_loader_measures_how_long_training_waits_for_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("foveate.training.batches.time.perf_counter", lambda: clock.now)

    def collate(samples: list[int], step: int) -> int:
        clock.go(3)
        return step

    loader = training_loader(Numbers(20), range(20), 5, seed=0, collate=collate)
    for _ in range(2):  # each epoch by itself
        for _ in loader:
            clock.go(1)
        assert loader.waited == 12
        assert loader.share_waited() == 0.75


class Damaged:
    """Images of which one is unreadable."""

    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 6:
            raise DataError(expected="a readable image in p6.png", received="damage", do="remove the file")
        return torch.zeros(1, 2, 2), index


@pytest.mark.parametrize("workers", [0, 2])
def test_the_error_of_a_damaged_picture_is_raised_unchanged(workers: int) -> None:
    batches = iter(plain_loader(Damaged(), 3, workers))
    assert [next(batches)[1].tolist() for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(DataError, match=r"p6\.png") as caught:
        next(batches)
    assert caught.value.do == "remove the file"
