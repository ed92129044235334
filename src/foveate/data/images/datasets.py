"""Map-style datasets of torch: each sample is (float32 image (C, H, W), int label)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from foveate.data.images.decode import reduced, resized
from foveate.data.images.reduction import Reduction
from foveate.data.images.working_copies import WorkingCopies
from foveate.data.splits import Item
from foveate.normalisation import Normalisation

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ColourSet", "ImageFileSet", "SceneSet", "image_input", "reduction_for"]

_ZOOM = 1.3  # size of the working copy relative to the final size: the smallest crop needs that many pixels


class SceneSet:
    """Grey images in memory; each channel repeats the grey image, with its own normalisation."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], normalisation: Normalisation):
        self.images, self.labels = images, labels
        mean, deviation = np.array(normalisation.mean), np.array(normalisation.deviation)
        self._table = ((np.arange(256) / 255 - mean[:, None]) / deviation[:, None]).astype(np.float32)  # (C, 256)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> "tuple[Tensor, int]":
        import torch

        return torch.from_numpy(self._table[:, self.images[index]]), int(self.labels[index])

    def set_epoch(self, epoch: int) -> None:
        """Change nothing: these images have no augmentation."""

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return the image for showing, uint8 (H, W, 3)."""
        return np.repeat(self.images[index][:, :, None], 3, axis=2)


class ColourSet(SceneSet):
    """Colour images (N, H, W, 3) in memory, normalised once."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], normalisation: Normalisation):
        super().__init__(images, labels, normalisation)
        self._normalised = np.stack([table[images[..., channel]] for channel, table in enumerate(self._table)], 1)

    def __getitem__(self, index: int) -> "tuple[Tensor, int]":
        import torch

        return torch.from_numpy(self._normalised[index]), int(self.labels[index])

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return the image for showing, uint8 (H, W, 3)."""
        return self.images[index]


class ImageFileSet:
    """Image files, cropped to `size` x `size` and normalised.

    With `augment`, a sample is a random view (see `foveate.data.images.augment`), which depends only on seed, epoch and
    index, not on the workers. Without it, a sample is the central square of the image.
    """

    def __init__(
        self,
        copies: WorkingCopies,
        items: Sequence[Item],
        size: int,
        normalisation: Normalisation,
        *,
        seed: int,
        augment: bool,
    ):
        import torch

        self.copies, self.items, self.size, self.seed, self.augment = copies, tuple(items), size, seed, augment
        self.labels = np.array([item.label for item in self.items], np.int64)
        self.normalisation = normalisation
        # in shared memory, so that persistent workers see a new epoch
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> "tuple[Tensor, int]":
        """Read, crop and normalise one image. Raises DataError, naming the file, if it does not decode."""
        import torch

        image = self._random_view(index) if self.augment else self.image(index)
        return torch.from_numpy(_normalised(image, self.normalisation)), self.items[index].label

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the random views."""
        self._epoch.fill_(epoch)

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return the unaugmented view for showing, uint8 (H, W, 3)."""
        return middle(self.copies[self.items[index].path], self.size)

    def _random_view(self, index: int) -> NDArray[np.uint8]:
        from foveate.data.images.augment import random_view

        return random_view(self.copies[self.items[index].path], self.size, self.seed, int(self._epoch), index)


def reduction_for(size: int) -> Reduction:
    """Return the reduction of the images that become inputs of `size` pixels."""
    return Reduction(round(size * _ZOOM))


def image_input(image: NDArray[np.uint8], size: int, normalisation: Normalisation) -> NDArray[np.float32]:
    """Return an image (H, W, 3) as a model's input (3, size, size), as `ImageFileSet` does without `augment`."""
    return _normalised(middle(reduced(image, reduction_for(size)), size), normalisation)


def middle(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the middle square of an image (H, W, 3), resized to (size, size, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    return resized(image, (left, top, left + side, top + side), (size, size))


def _normalised(pixels: NDArray[np.uint8], normalisation: Normalisation) -> NDArray[np.float32]:
    mean, deviation = (
        np.array(values, np.float32)[:, None, None] for values in (normalisation.mean, normalisation.deviation)
    )
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    image *= 1 / (255 * deviation)
    image -= mean / deviation
    return image
