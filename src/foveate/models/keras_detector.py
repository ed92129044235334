"""A detector for Keras's `fit`: a functional model with one output for each head, and the detection loss."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from foveate.bind.keras.parts import PACKAGE, DataFormat
from foveate.checks import check_choice
from foveate.detection import CONF, IOU, MAX_DET
from foveate.detection.boxes import Array
from foveate.detection.detections import Detections
from foveate.detection.heads import Head, decode_all
from foveate.detection.loss import detection_loss
from foveate.detection.nms import select
from foveate.errors import UsageError


@keras.saving.register_keras_serializable(PACKAGE)
class Detector(keras.Model):
    """A model with the detection loss: `compile(optimizer)` needs no loss, and `fit` takes a `BoxBatches`.

    The model inside is not changed and keeps its weights, names and files: pass `detector.model` to `attach`,
    `load_darknet` and `transfer_weights`. The loss is computed in float32, whatever type the model computes in; the
    model's regularisers are added.

    Args:
        model: a functional model, images in 0..1 -> for each head (N, H, W, A * (5 + K)), or (N, A * (5 + K), H, W)
            channels first.
        heads: describe the outputs; `foveate.detection.heads.make_heads` makes them.
        smoothing: of the classes' targets, from 0 to below 1.
        data_format: of the model, "channels_last" or "channels_first"; None is Keras's own setting.
        common: the arguments of every Keras model, such as `name`.

    Raises:
        UsageError: for a model without exactly one output for each head, or with another data format.
    """

    def __init__(
        self,
        model: Any,
        heads: Sequence[Head],
        *,
        smoothing: float = 0.0,
        data_format: DataFormat | None = None,
        **common: Any,
    ):
        outputs = getattr(model, "outputs", None) or ()
        if len(outputs) != len(heads):
            received = f"{type(model).__name__} with {len(outputs)} outputs"
            expected = f"a functional model with {len(heads)} outputs, one for each head"
            raise UsageError(
                expected=expected, received=received, do="build the model and the heads with the same mask"
            )
        super().__init__(**common)
        self.model, self.heads, self.smoothing = model, tuple(heads), smoothing
        self.channels_last = is_last(data_format)
        self.built = True  # the functional model is built, so Keras need not take a batch to build this one

    def call(self, images: Any, training: bool | None = None) -> Any:
        """Return the outputs of the model."""
        return self.model(images, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Return the loss of outputs and targets (N, A, H, W, 7), one for each head; refuse sample weights."""
        targets = [] if y is None else keras.tree.flatten(y)
        if sample_weight is not None or len(targets) != len(self.heads):
            received = f"{len(targets)} targets" if sample_weight is None else "weights of samples"
            raise UsageError(
                expected=f"{len(self.heads)} targets, one for each head", received=received, do="fit on a BoxBatches"
            )
        outputs, targets = (
            [keras.ops.cast(part, "float32") for part in parts] for parts in (keras.tree.flatten(y_pred), targets)
        )
        options: Any = {"smoothing": self.smoothing, "channels_last": self.channels_last}
        return sum(self.losses, detection_loss(keras.ops, outputs, targets, self.heads, **options)["total"])

    def detect(
        self, images: Any, *, conf: float = CONF, iou: float = IOU, max_det: int = MAX_DET, batch: int = 16
    ) -> list[Detections]:
        """Return the detections in each image: `boxes` (D, 4) xyxy in input pixels, `scores` (D,), `labels` (D,).

        Args:
            images: float32 in 0..1 in the model's data format, or a `BoxBatches`.
            conf: what a score must exceed; 0.001 for average precision.
            iou: of two boxes of a class with a higher IoU only the one with the higher score is kept; 0.65 for average
                precision.
            max_det: the highest number of boxes in an image.
            batch: the number of images computed at once; a `BoxBatches` has its own.

        Raises:
            UsageError: for a `BoxBatches` that shuffles, since the order of the images is then unknown.
        """
        if getattr(images, "shuffle", False):
            raise UsageError(
                expected="images in their own order",
                received="shuffled batches",
                do="pass BoxBatches(..., shuffle=False)",
            )
        detections, size = [], 0
        for some in _batches(images, batch):
            size = max(size, len(some))
            # a smaller last batch would be compiled again
            whole = np.pad(some, [(0, size - len(some)), (0, 0), (0, 0), (0, 0)])
            outputs = [
                np.asarray(output, np.float32)[: len(some)]
                for output in keras.tree.flatten(self.predict_on_batch(whole))
            ]
            boxes, scores = decode_all(np, outputs, self.heads, self.channels_last)
            detections += [Detections(*select(b, s, conf, iou, max_det)) for b, s in zip(boxes, scores, strict=True)]
        return detections

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, including the model."""
        return {
            **super().get_config(),
            "model": keras.saving.serialize_keras_object(self.model),
            "heads": [asdict(head) for head in self.heads],
            "smoothing": self.smoothing,
            "data_format": "channels_last" if self.channels_last else "channels_first",
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "Detector":
        """Return a detector from the result of `get_config`, with new weights."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        heads = [Head(**{**head, "anchors": tuple(map(tuple, head["anchors"]))}) for head in config["heads"]]
        return cls(**{**config, "model": model, "heads": heads})


def is_last(data_format: DataFormat | None) -> bool:
    """Return whether a data format has channels last; None is Keras's setting. Raises UsageError for other names."""
    chosen = keras.config.image_data_format() if data_format is None else data_format
    check_choice("data_format", chosen, ("channels_last", "channels_first"))
    return chosen == "channels_last"


def _batches(images: Any, size: int) -> Iterator[Array]:
    if isinstance(images, keras.utils.PyDataset):
        parts = (keras.utils.unpack_x_y_sample_weight(images[index])[0] for index in range(images.num_batches or 0))
    else:
        parts = (images[start : start + size] for start in range(0, len(images), size))
    yield from (np.asarray(keras.ops.convert_to_numpy(part)) for part in parts)
