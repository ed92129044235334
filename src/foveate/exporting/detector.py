"""Decoding and non-maximum suppression inside the graph of a detector."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from foveate.detection.heads import Head, decode_all
from foveate.detection.nms import nms
from foveate.errors import UsageError
from foveate.exporting.subject import Boxes, Subject, Thresholds


class Decoded(nn.Module):
    """A detector that returns boxes (N, M, 4), xyxy in pixels of its input, and scores (N, M, K) from 0 to 1."""

    def __init__(self, model: nn.Module, heads: Sequence[Head], channels_last: bool = False):
        super().__init__()
        self.model, self.heads, self.channels_last = model, tuple(heads), channels_last

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the model and decode its outputs."""
        boxes, scores = decode_all(torch, self.model(*inputs), self.heads, self.channels_last)
        return boxes, scores


class Suppressed(nn.Module):
    """A detector that returns the boxes NMS keeps in a batch, by falling score.

    Boxes (D, 4) in pixels of the input, scores (D,), labels (D,), and the number of the image of each in the batch
    (D,).
    """

    def __init__(self, decoded: Decoded, limits: Thresholds):
        super().__init__()
        self.decoded, self.limits = decoded, limits

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the model, suppress, and keep the `max_det` highest scores of each image."""
        boxes, scores = self.decoded(*inputs)
        kept = suppress(boxes, scores, self.limits.max_det, self.limits.iou, self.limits.conf)
        image, label, candidate = kept.unbind(1)
        score, order = scores[image, candidate, label].sort(descending=True)
        image, label, candidate = image[order], label[order], candidate[order]
        same = image[:, None] == torch.arange(boxes.shape[0], device=image.device)
        rank = (same.to(torch.int64).cumsum(0) * same).sum(1)  # 1 for the highest score of an image
        within = (rank <= self.limits.max_det).nonzero().squeeze(1)
        return boxes[image, candidate][within], score[within], label[within], image[within]


@torch.library.custom_op("foveate::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, most: int, threshold: float, conf: float) -> Tensor:
    """Return (image, label, candidate) of the boxes that NMS keeps, (D, 3); at most `most` of a class in an image.

    As the ONNX operator NonMaxSuppression, which it becomes: a score must exceed `conf`, and of two boxes of a class
    whose IoU exceeds `threshold` the one with the lower score is dropped.
    """
    rows: list[list[int]] = []
    for image, (corners, of_classes) in enumerate(zip(boxes.cpu().numpy(), scores.cpu().numpy(), strict=True)):
        for label, of_class in enumerate(of_classes.T):
            (candidates,) = np.nonzero(of_class > conf)
            kept = nms(corners[candidates], of_class[candidates], np.zeros(len(candidates)), threshold, most)
            rows += [[image, label, int(candidate)] for candidate in candidates[kept]]
    return torch.tensor(rows, dtype=torch.int64, device=boxes.device).reshape(-1, 3)


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, most: int, threshold: float, conf: float) -> Tensor:
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int64)


def with_boxes(subject: Subject, boxes: Boxes, limits: Thresholds) -> Subject:
    """Return a detector's subject with decoding, or decoding and NMS, in its graph.

    Raises UsageError for a model without heads.
    """
    if boxes == "outputs":
        return subject
    if not subject.heads:
        raise UsageError(
            expected="a detector whose `heads` describe its outputs",
            received="a model without heads",
            do="leave boxes out, or set model.heads to foveate.detection.heads.make_heads(...)",
        )
    decoded = Decoded(subject.module, subject.heads, subject.channels_last)
    if boxes == "decoded":
        return replace(subject, module=decoded, output_names=("boxes", "scores"), boxes=boxes)
    names = ("boxes", "scores", "labels", "image")
    return replace(subject, module=Suppressed(decoded, limits), output_names=names, boxes=boxes)
