"""Pictures with boxes as the batches of Keras's `fit`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from foveate.bind.keras_ops import DataFormat
from foveate.detection.assign import assign
from foveate.detection.boxes import Array
from foveate.detection.heads import Head
from foveate.models.keras_detector import is_last
from foveate.spec import check_least

if TYPE_CHECKING:
    from foveate.data.box_sets import BoxSet

VIEWS = 100_000  # epochs, each with its own views, between two seeds: as in the training in torch, whose batches these are


class BoxBatches(keras.utils.PyDataset):
    """Batches of a set of boxes, such as `open_box_data(...).train`: (images, a target for each head). Reading the data takes torch.

    Images are float32 (N, S, S, 3) in 0..1, or (N, 3, S, S); targets float32 (N, A, H, W, 7), as `assign` makes them. With `shuffle`
    the order and the augmentations are drawn anew each epoch, by seed and epoch alone, and a last batch that is not full is left out;
    without, it is every picture once, in order, for validation. Pass `shuffle=False` to `fit`, which shuffles the batches else.

    Args:
        dataset: the pictures.
        heads: the detector's.
        classes: how many.
        batch: pictures a batch, all of them where they are fewer.
        shuffle: whether it is for training.
        seed: of the order and the augmentations.
        data_format: of the images, "channels_last" or "channels_first"; None is Keras's own setting.
        workers: what every `PyDataset` takes: `workers`, `use_multiprocessing`, `max_queue_size`.

    Raises:
        UsageError: for a batch or a seed that cannot be, or another data format.
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
        data_format: DataFormat | None = None,
        **workers: Any,
    ):
        super().__init__(**workers)
        check_least("batch", batch, 1)
        check_least("seed", seed, 0)
        self.dataset, self.heads, self.classes, self.shuffle, self.seed = dataset, tuple(heads), classes, shuffle, seed
        self.batch = min(batch, max(len(dataset), 1))
        self.channels_last, self._begun = is_last(data_format), False
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that comes next, counted from 0: for a training that goes on where another ended."""
        self.epoch, self.order = epoch, np.arange(len(self.dataset))
        if self.shuffle:
            self.order = np.random.default_rng([self.seed, epoch]).permutation(self.order)

    def __len__(self) -> int:
        return len(self.order) // self.batch if self.shuffle else -(-len(self.order) // self.batch)

    def __getitem__(self, index: int) -> tuple[Array, tuple[Array, ...]]:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        if self.shuffle:
            self.dataset.set_epoch(self.seed * VIEWS + self.epoch)  # each time, as others may read the same pictures in between
        samples = [self._sample(int(k)) for k in self.order[index * self.batch : (index + 1) * self.batch]]
        images, targets = zip(*samples, strict=True)
        return np.stack(images), tuple(np.stack(parts) for parts in zip(*targets, strict=True))

    def on_epoch_begin(self) -> None:
        """Note that an epoch runs."""
        self._begun = True

    def on_epoch_end(self) -> None:
        """Go on to the next epoch: here, since workers are ahead of the next beginning, and once, since Keras also calls this before it."""
        if self._begun:
            self._begun = False
            self.set_epoch(self.epoch + 1)

    def _sample(self, index: int) -> tuple[Array, list[Array]]:
        image, *truth = (part.numpy() for part in self.dataset[index])
        boxes, labels, ignored = truth
        size = (image.shape[2], image.shape[1])
        targets = assign(boxes[~ignored], labels[~ignored], self.heads, size, self.classes, boxes[ignored])
        return image.transpose(1, 2, 0) if self.channels_last else image, targets
