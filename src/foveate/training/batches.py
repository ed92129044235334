"""Batches whose order depends on the seed and the epoch alone: never on the model, the workers or the threads."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, default_collate

from foveate.data.epochs import order, views
from foveate.errors import FoveateError


class Images(Protocol):
    """A map-style dataset: `images[i]` is (image (C, H, W), label)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class SeededBatches(Sampler[list[int]]):
    """Indices of the training batches, shuffled anew each epoch; a last batch that is not full is left out.

    `begin` is told the epoch before its first batch is asked for, in this process: the place to draw other augmentations.
    """

    def __init__(self, indices: Sequence[int], batch: int, seed: int, begin: Callable[[int], object] = bool):
        self.indices, self.seed, self.epoch, self.begin = np.asarray(indices), seed, 0, begin
        self.batch = min(batch, len(self.indices))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0. Lightning tells it to a loader's samplers but to no batch sampler: call this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices) // self.batch

    def __iter__(self) -> Iterator[list[int]]:
        self.begin(self.epoch)
        indices = order(self.indices, self.seed, self.epoch)
        for start in range(0, len(self) * self.batch, self.batch):
            yield indices[start : start + self.batch].tolist()


def share(count: int, fraction: float) -> list[int]:
    """Return which of `count` images a fraction keeps: the same ones for every seed and arm, at least one."""
    kept = np.random.default_rng(0).permutation(count)[: max(1, round(count * fraction))]
    return sorted(kept.tolist())


def training_loader(
    dataset: Images,
    indices: Sequence[int],
    batch: int,
    seed: int,
    workers: int = 0,
    collate: Any = None,
    begin: Callable[[int], object] = bool,
) -> DataLoader[Any]:
    """Return the shuffled batches of the chosen images; a dataset with `set_epoch` draws its augmentations by seed and epoch."""
    set_epoch = getattr(dataset, "set_epoch", bool)

    def begin_epoch(epoch: int) -> None:
        set_epoch(views(seed, epoch))
        begin(epoch)

    return _loader(dataset, SeededBatches(indices, batch, seed, begin_epoch), workers, collate)


def plain_loader(dataset: Images, batch: int, workers: int = 0, collate: Any = None) -> DataLoader[Any]:
    """Return every image once, in order."""
    count = len(dataset)
    return _loader(dataset, [list(range(start, min(start + batch, count))) for start in range(0, count, batch)], workers, collate)


class _Telling:
    """A dataset that hands over an error of ours instead of raising it: of one in a worker, torch would make a RuntimeError."""

    def __init__(self, images: Images):
        self.images = images

    def __getitem__(self, index: int) -> Any:
        try:
            return self.images[index]
        except FoveateError as error:
            return error


class _Hearing(DataLoader[Any]):
    """Batches of a `_Telling`, whose errors are raised here as they are."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, FoveateError):
                raise batch
            yield batch


def _loader(dataset: Images, batches: Any, workers: int, collate: Any) -> DataLoader[Any]:
    # an own generator: a loader draws from the global one otherwise, and the model's dropout with it
    draw = torch.Generator().manual_seed(0)
    told: Any = _Telling(dataset)
    joined = partial(_joined, collate or default_collate)
    return _Hearing(told, batch_sampler=batches, num_workers=workers, persistent_workers=workers > 0, generator=draw, collate_fn=joined)


def _joined(collate: Callable[[list[Any]], Any], items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, FoveateError)), None) or collate(items)
