"""Detectors by name, and the boxes that one finds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveate.detection.detections import Found
from foveate.detection.heads import decode_all
from foveate.detection.nms import select
from foveate.errors import UsageError, nearest

DETECTORS = ("yolov4-tiny",)
DARKNET = ".weights"


def build_detector(
    name: str, classes: int, *, anchors: Sequence[tuple[float, float]] | None = None, weights: Path | None = None
) -> nn.Module:
    """Build a detector: images (N, 3, H, W) in 0..1 -> the outputs that its `heads` explain.

    `anchors` are six (width, height) in pixels of the input, smallest first; None takes COCO's, which Darknet's weights need. `weights`
    is a Darknet file (.weights) or a checkpoint; heads trained for other classes start afresh.

    Raises:
        UsageError: no such detector, or weights of another network.
        DataError: damaged weights.
    """
    if name not in DETECTORS:
        raise UsageError(expected=f"a detector: {', '.join(DETECTORS)}", received=repr(name), do=nearest(name, DETECTORS))
    from foveate.models.yolov4_tiny import YOLOv4Tiny

    model = YOLOv4Tiny(classes) if anchors is None else YOLOv4Tiny(classes, ((3, 4, 5), (0, 1, 2)), anchors=anchors)
    if weights is not None:
        load_detector(model, weights)
    return model


def load_detector(model: Any, path: Path) -> None:
    """Load a detector's weights, its heads aside where they were trained for other classes; raises as `build_detector` does."""
    from foveate.models.darknet import load_darknet
    from foveate.models.weights import load_weights

    if path.suffix == DARKNET:
        load_darknet(model, path)
    else:
        load_weights(model, path, model.classes, ("coarse_head", "fine_head"))


@torch.inference_mode()
def find(model: Any, images: Tensor, *, conf: float = 0.25, iou: float = 0.45, max_det: int = 300) -> list[Found]:
    """Return what a detector in eval mode finds in each of the images (N, 3, H, W) in 0..1, in pixels of the input."""
    return found(model, model(images), conf=conf, iou=iou, max_det=max_det)


def found(model: Any, outputs: Sequence[Tensor], *, conf: float, iou: float, max_det: int) -> list[Found]:
    """Return what a detector's outputs say it found in each image."""
    boxes, scores = (part.float().cpu().numpy() for part in decode_all(torch, outputs, model.heads))
    return [Found(*select(b, s, conf, iou, max_det)) for b, s in zip(boxes, scores, strict=True)]
