"""Collate samples of images with boxes into images and dense targets, also for multi-scale training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from foveate.detection.assign import assign_batch
from foveate.detection.heads import STRIDE, Head

__all__ = ["BoxCollate", "rescaled", "sides", "size_at"]


@dataclass(frozen=True)
class BoxCollate:
    """Make a batch from samples of a `BoxSet`: images (N, 3, S, S), and the targets (N, A, H, W, 7) of each head.

    The workers of a loader call it, so that the training step need not wait for the targets, which `assign` makes. With
    the `seed` of a multi-scale training, the targets are for images of side `size_at` the step. The training step
    resizes the images to that side (`rescaled`), since interpolation rounds differently in workers.
    """

    heads: tuple[Head, ...]
    classes: int
    seed: int | None = None

    def __call__(
        self, samples: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]], step: int = 0
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the images and the targets of the batch for a step, counted from 0."""
        images = torch.stack([image for image, *_ in samples])
        own = images.shape[-1]
        size = own if self.seed is None else size_at(step, self.seed, own)
        arrays = (
            [(boxes * (size / own)).numpy(), labels.numpy(), ignored.numpy()] for _, boxes, labels, ignored in samples
        )
        targets = assign_batch(arrays, self.heads, (size, size), self.classes)
        return images, [torch.from_numpy(target) for target in targets]


def rescaled(images: Tensor, targets: Sequence[Tensor], heads: Sequence[Head]) -> Tensor:
    """Return images (N, 3, S, S) resized to the side that the targets of the batch are for."""
    size, own = targets[0].shape[3] * heads[0].stride, images.shape[-1]
    return (
        images
        if size == own
        else interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=size < own)
    )


def size_at(step: int, seed: int, size: int) -> int:
    """Return the side for a training step, one of `sides(size)`; it depends only on seed and step."""
    choice = sides(size)
    return choice[np.random.default_rng([seed, step]).integers(len(choice))]


def sides(size: int) -> range:
    """Return the sides of a multi-scale training: the multiples of 32 from 3/4 to 5/4 of `size`.

    If a small `size` is the only such multiple, the next multiple on either side is added.
    """
    own = size // STRIDE
    low, high = min(-(-3 * own // 4), max(1, own - 1)), max(5 * own // 4, own + 1)
    return range(STRIDE * low, STRIDE * (high + 1), STRIDE)
