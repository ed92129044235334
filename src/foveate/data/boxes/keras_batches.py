"""Batches of images with boxes for Keras's `fit`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from foveate.bind.keras.parts import DataFormat
from foveate.checks import check_least
from foveate.data.epochs import order, views
from foveate.detection.assign import assign_batch
from foveate.detection.boxes import Array
from foveate.detection.heads import Head
from foveate.models.keras_detector import is_last

if TYPE_CHECKING:
    from foveate.data.boxes.box_set import BoxSet


class BoxBatches(keras.utils.PyDataset):
    """Batches (images, a target for each head) of a `BoxSet`, such as `open_box_data(...).train`, which needs torch.

    Images are float32 (N, S, S, 3) in 0..1, or (N, 3, S, S); targets float32 (N, A, H, W, 7), as `assign` makes them.
    With `shuffle`, order and augmentations change with each epoch and depend only on seed and epoch; a last batch that
    is not full is left out. Without it, the batches hold every image once, in order, for validation. Pass
    `shuffle=False` to `fit`, which otherwise shuffles the batches.

    Args:
        dataset: the images.
        heads: of the detector.
        classes: the number of classes.
        batch: the number of images in a batch; if the data set has fewer, all of them.
        shuffle: True for training.
        seed: of the order and the augmentations.
        mosaic: whether half of the training views are mosaics of four images. Training in torch ends with two epochs
            without mosaics: to do the same, set this attribute to False before another `fit`.
        data_format: of the images, "channels_last" or "channels_first"; None is Keras's own setting.
        workers: options of every `PyDataset`: `workers`, `use_multiprocessing`, `max_queue_size`.

    Raises:
        UsageError: for a batch or a seed out of range, or an unknown data format.
    """

    def __init__(
        self,
        dataset: "BoxSet",
        heads: Sequence[Head],
        classes: int,
        batch: int = 16,
        *,
        shuffle: bool = True,
        seed: int = 0,
        mosaic: bool = True,
        data_format: DataFormat | None = None,
        **workers: Any,
    ):
        super().__init__(**workers)
        check_least("batch", batch, 1)
        check_least("seed", seed, 0)
        self.dataset, self.heads, self.classes, self.shuffle, self.seed, self.mosaic = (
            dataset,
            tuple(heads),
            classes,
            shuffle,
            seed,
            mosaic,
        )
        self.batch = min(batch, max(len(dataset), 1))
        self.channels_last, self._begun = is_last(data_format), False
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the next epoch, counted from 0, to continue a training."""
        self.epoch, self.order = epoch, np.arange(len(self.dataset))
        if self.shuffle:
            self.order = order(self.order, self.seed, epoch)

    def __len__(self) -> int:
        return len(self.order) // self.batch if self.shuffle else -(-len(self.order) // self.batch)

    def __getitem__(self, index: int) -> tuple[Array, tuple[Array, ...]]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        if self.shuffle:  # set each time, as other users of the data set may have changed it
            self.dataset.set_epoch(views(self.seed, self.epoch))
            self.dataset.set_mosaic(self.mosaic)
        chosen = self.order[index * self.batch : (index + 1) * self.batch]
        samples = [[part.numpy() for part in self.dataset[int(k)]] for k in chosen]
        images = np.stack([image for image, *_ in samples])
        size = (images.shape[3], images.shape[2])
        targets = assign_batch([truth for _, *truth in samples], self.heads, size, self.classes)
        return images.transpose(0, 2, 3, 1) if self.channels_last else images, tuple(targets)

    def on_epoch_begin(self) -> None:
        """Remember that an epoch has begun."""
        self._begun = True

    def on_epoch_end(self) -> None:
        """Choose the next epoch, as workers load its batches before it begins.

        Keras also calls this once before the first epoch, which changes nothing.
        """
        if self._begun:
            self._begun = False
            self.set_epoch(self.epoch + 1)
