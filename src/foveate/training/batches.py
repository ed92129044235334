"""Batches whose order depends on the seed and the epoch alone: never on the model, the workers or the threads."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, default_collate

from foveate.data.epochs import order, views
from foveate.errors import FoveateError


class Images(Protocol):
    """A map-style dataset: `images[i]` is (image (C, H, W), label)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Batch(NamedTuple):
    """The indices of the samples of one batch; `step` counts the batches of the whole run from 0."""

    step: int
    indices: list[int]


class Collate(Protocol):
    """Make a batch of samples; `step` is that of `Batch`."""

    def __call__(self, samples: list[Any], step: int, /) -> Any:
        """Return the batch."""
        ...


class SeededBatches(Sampler[Batch]):
    """The training batches, shuffled anew each epoch; a last batch that is not full is left out.

    `begin` is called with the epoch, in this process, before its first batch is asked for: augmentations are drawn anew
    there.
    """

    def __init__(self, indices: Sequence[int], batch: int, seed: int, begin: Callable[[int], object] = bool):
        self.indices, self.seed, self.epoch, self.begin = np.asarray(indices), seed, 0, begin
        self.batch = min(batch, len(self.indices))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0. Lightning does this for the samplers of a loader but not for its batch sampler."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices) // self.batch

    def __iter__(self) -> Iterator[Batch]:
        self.begin(self.epoch)
        indices = order(self.indices, self.seed, self.epoch)
        for k in range(len(self)):
            yield Batch(self.epoch * len(self) + k, indices[k * self.batch : (k + 1) * self.batch].tolist())


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
    collate: Collate | None = None,
    begin: Callable[[int], object] = bool,
) -> DataLoader[Any]:
    """Return the shuffled batches of the chosen images; a dataset with `set_epoch` draws its augmentations by seed and epoch."""
    set_epoch = getattr(dataset, "set_epoch", bool)

    def begin_epoch(epoch: int) -> None:
        set_epoch(views(seed, epoch))
        begin(epoch)

    return _loader(dataset, SeededBatches(indices, batch, seed, begin_epoch), workers, collate)


def plain_loader(dataset: Images, batch: int, workers: int = 0, collate: Collate | None = None) -> DataLoader[Any]:
    """Return every image once, in order."""
    count = len(dataset)
    batches = [
        Batch(k, list(range(start, min(start + batch, count)))) for k, start in enumerate(range(0, count, batch))
    ]
    return _loader(dataset, batches, workers, collate)


class _Batches:
    """A dataset whose samples are whole batches, made in a worker where there is one.

    Torch would turn an error of ours in a worker into a RuntimeError, so such an error takes the place of its batch.
    """

    def __init__(self, images: Images, collate: Collate | None):
        self.images, self.collate = images, collate or _default

    def __getitems__(self, batch: Batch) -> Any:
        try:
            return self.collate([self.images[index] for index in batch.indices], batch.step)
        except FoveateError as error:
            return error


class _RaisingLoader(DataLoader[Any]):
    """The batches of `_Batches`; an error of ours is raised in the process that asks for its batch."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, FoveateError):
                raise batch
            yield batch


def _loader(dataset: Images, batches: Any, workers: int, collate: Collate | None) -> DataLoader[Any]:
    # an own generator: a loader draws from the global one otherwise, and the model's dropout with it
    draw = torch.Generator().manual_seed(0)
    made: Any = _Batches(dataset, collate)
    return _RaisingLoader(
        made,
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=draw,
        collate_fn=_as_it_is,
    )


def _default(samples: list[Any], step: int) -> Any:
    return default_collate(samples)


def _as_it_is(batch: Any) -> Any:
    return batch
