"""Batches whose order depends only on seed and epoch, not on the model, the workers or the threads."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, default_collate

from foveate.data.epochs import order, views
from foveate.errors import FoveateError, UsageError


class Samples(Protocol):
    """A map-style dataset: `images[i]` is (image (C, H, W), label)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class Batch(NamedTuple):
    """The indices of the samples of one batch; `step` counts the batches of the whole run from 0."""

    step: int
    indices: list[int]


class Collate(Protocol):
    """A function that makes a batch from samples; `step` is that of `Batch`."""

    def __call__(self, samples: list[Any], step: int, /) -> Any:
        """Return the batch."""
        ...


class SeededBatches(Sampler[Batch]):
    """The training batches, shuffled anew each epoch; a last batch that is not full is left out.

    `part` (rank, count) of a training on several processes: each batch is cut into `count` equal parts, of which this
    is one; `batch` is the size of a part, so that the parts together are the batches of one process with `count` times
    the batch.

    `begin` is called with the epoch, in this process, before the first batch of the epoch. It chooses the augmentations
    of the epoch.
    """

    def __init__(
        self,
        indices: Sequence[int],
        batch: int,
        seed: int,
        begin: Callable[[int], object] = bool,
        part: tuple[int, int] = (0, 1),
    ):
        self.indices, self.seed, self.epoch, self.begin = np.asarray(indices), seed, 0, begin
        self.rank, self.count = part
        self.batch = min(batch, len(self.indices) // self.count)
        if not self.batch:
            raise UsageError(
                expected=f"an image for each of {self.count} processes",
                received=f"{len(self.indices)} training images",
                do="train on fewer processes",
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0; Lightning does this for samplers, but not for batch samplers."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.indices) // (self.batch * self.count)

    def __iter__(self) -> Iterator[Batch]:
        self.begin(self.epoch)
        indices = order(self.indices, self.seed, self.epoch)
        for k in range(len(self)):
            start = (k * self.count + self.rank) * self.batch
            yield Batch(self.epoch * len(self) + k, indices[start : start + self.batch].tolist())


def share(count: int, fraction: float) -> list[int]:
    """Return the indices of the images that a fraction keeps: at least one, the same ones for every seed and arm."""
    kept = np.random.default_rng(0).permutation(count)[: max(1, round(count * fraction))]
    return sorted(kept.tolist())


def training_loader(
    dataset: Samples,
    indices: Sequence[int],
    batch: int,
    seed: int,
    workers: int = 0,
    collate: Collate | None = None,
    begin: Callable[[int], object] = bool,
    part: tuple[int, int] = (0, 1),
) -> "Loader":
    """Return a loader of shuffled batches of the chosen images, or of this part of each of them.

    The augmentations of a dataset with `set_epoch` depend only on seed, epoch and index.
    """
    set_epoch = getattr(dataset, "set_epoch", bool)

    def begin_epoch(epoch: int) -> None:
        set_epoch(views(seed, epoch))
        begin(epoch)

    return _loader(dataset, SeededBatches(indices, batch, seed, begin_epoch, part), workers, collate)


def plain_loader(dataset: Samples, batch: int, workers: int = 0, collate: Collate | None = None) -> "Loader":
    """Return a loader of every image once, in order."""
    count = len(dataset)
    batches = [
        Batch(k, list(range(start, min(start + batch, count)))) for k, start in enumerate(range(0, count, batch))
    ]
    return _loader(dataset, batches, workers, collate)


class _Batches:
    """A dataset whose samples are whole batches, made in a worker if there are workers.

    Torch would turn a FoveateError in a worker into a RuntimeError, so the error is returned in place of the batch.
    """

    def __init__(self, images: Samples, collate: Collate | None):
        self.images, self.collate = images, collate or _default

    def __getitems__(self, batch: Batch) -> Any:
        try:
            return self.collate([self.images[index] for index in batch.indices], batch.step)
        except FoveateError as error:
            return error


class Loader(DataLoader[Any]):
    """The batches of `_Batches`; a FoveateError of a worker is raised in the process that asks for the batch.

    `waited` is the time in seconds that this epoch has waited for batches, the start of the workers included.
    """

    waited, _began = 0.0, 0.0

    def __iter__(self) -> Any:
        self.waited, self._began, batches = 0.0, time.perf_counter(), None
        while True:
            asked = time.perf_counter()
            batches = super().__iter__() if batches is None else batches
            batch = next(batches, None)
            self.waited += time.perf_counter() - asked
            if isinstance(batch, FoveateError):
                raise batch
            if batch is None:
                return
            yield batch

    def check_worker_number_rationality(self) -> None:
        """Do not warn about more workers than cores, as torch would: the user chose the number."""

    def share_waited(self) -> float:
        """Return the share of the time since the first batch of this epoch was asked for that was waiting, 0 to 1."""
        return min(1.0, self.waited / max(time.perf_counter() - self._began, 1e-9))


def _loader(dataset: Samples, batches: Any, workers: int, collate: Collate | None) -> "Loader":
    # its own generator: a loader would otherwise use the global one, which the model's dropout uses too
    draw = torch.Generator().manual_seed(0)
    made: Any = _Batches(dataset, collate)
    return Loader(
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
