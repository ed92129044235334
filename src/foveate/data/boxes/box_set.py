"""Map-style datasets of images with boxes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.data.boxes.annotations import LabelledImage
from foveate.data.images.decode import read_image
from foveate.data.images.working_copies import WorkingCopies
from foveate.detection.boxes import Letterbox

if TYPE_CHECKING:
    from torch import Tensor

    from foveate.data.boxes.views import View

__all__ = ["ZOOM", "BoxSet", "ImageFiles", "ImagesInMemory", "augmentation"]

ZOOM = (0.6, 1.4)  # of a random view, relative to the letterboxed image
_MOSAIC = 0.5  # share of the training views, if mosaics are on


class ImageSource(Protocol):
    """Images by index, uint8 (H, W, 3) or (H, W)."""

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]: ...

    def whole(self, index: int) -> NDArray[np.uint8]:
        """Return the image at its full size; `[i]` may be a smaller copy."""
        ...


class ImagesInMemory:
    """Grey images in memory, uint8 (N, H, W)."""

    def __init__(self, images: NDArray[np.uint8]):
        self.images = images

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self.images[index]

    def whole(self, index: int) -> NDArray[np.uint8]:
        """Return the image."""
        return self.images[index]


class ImageFiles:
    """Image files, as their working copies."""

    def __init__(self, copies: WorkingCopies, paths: Sequence[str]):
        self.copies, self.paths = copies, tuple(paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return a copy for training. Raises DataError, which names the file, if it does not decode."""
        return self.copies[self.paths[index]]

    def whole(self, index: int) -> NDArray[np.uint8]:
        """Return the image as it is in its file."""
        return read_image(self.copies.root / self.paths[index], greys=self.copies.greys)


class BoxSet:
    """Images as the input of a network: `[i]` is (image float32 (3, size, size) in 0..1, boxes, labels, ignored).

    Boxes are float32 (M, 4), xyxy in pixels of the input, labels int64 (M,), ignored bool (M,): crowd, difficult, or
    hardly visible. With `augment`, a sample is a random crop or a mosaic of four, which depends only on seed, epoch and
    index, not on the workers. Without it, a sample is the whole image, letterboxed.
    """

    def __init__(
        self, truths: Sequence[LabelledImage], images: ImageSource, size: int, *, seed: int, augment: bool, flips: bool
    ):
        import torch

        self.truths, self.images, self.size = tuple(truths), images, size
        self.seed, self.augment, self.flips = seed, augment, flips
        # in shared memory, so that persistent workers see a new epoch
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._mosaic = torch.ones((), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.truths)

    def __getitem__(self, index: int) -> "tuple[Tensor, Tensor, Tensor, Tensor]":
        import torch

        if self.augment:
            view = self._random_view(index)
            return view.image.expand(3, -1, -1), view.boxes, view.labels, view.ignored
        from foveate.data.boxes.views import letterboxed

        truth, letterbox = self.truths[index], self.letterbox(index)
        image = letterboxed(self.images[index], letterbox).expand(3, -1, -1)
        boxes = torch.from_numpy(letterbox.to_input(truth.boxes))
        return image, boxes, torch.from_numpy(truth.labels), torch.from_numpy(truth.ignored)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the random views."""
        self._epoch.fill_(epoch)

    def set_mosaic(self, on: bool) -> None:
        """Switch mosaics on or off; the last epochs of a training use none."""
        self._mosaic.fill_(on)

    def truth(self, index: int) -> LabelledImage:
        """Return the ground truth, in pixels of the image."""
        return self.truths[index]

    def letterbox(self, index: int) -> Letterbox:
        """Return the letterbox that converts between pixels of the image and of the input."""
        return Letterbox(self.truths[index].size, (self.size, self.size))

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return the image for showing, uint8 (H, W, 3), at the size that the boxes of `truth` refer to."""
        image = self.images.whole(index)
        return np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image

    def _random_view(self, index: int) -> "View":
        from foveate.data.boxes.views import mosaic, mosaic_tiles

        rng = np.random.default_rng([self.seed, int(self._epoch), index])
        if not (self._mosaic and rng.random() < _MOSAIC):
            return self._part(index, (0, 0, self.size, self.size), rng)
        tiles = mosaic_tiles(self.size, rng)
        others = rng.integers(len(self), size=3).tolist()
        return mosaic([self._part(k, tile, rng) for k, tile in zip([index, *others], tiles, strict=True)], tiles)

    def _part(self, index: int, tile: tuple[int, int, int, int], rng: np.random.Generator) -> "View":
        from foveate.data.boxes.views import part

        size = (tile[2] - tile[0], tile[3] - tile[1])
        zoom = np.exp(rng.uniform(*np.log(ZOOM)))
        inner = [max(1, round(side * zoom)) for side in self.letterbox(index).inner]
        return part(self.images[index], self.truths[index], (inner[0], inner[1]), size, rng, flips=self.flips)


def augmentation(flips: bool) -> str:
    """Return a sentence on the augmentation of a BoxSet, for a record."""
    whole = f"a part at {ZOOM[0]:g} to {ZOOM[1]:g} times its size, recoloured{', randomly mirrored' if flips else ''}"
    return f"{whole}; with mosaics, half of the samples are four such parts in one"
