"""Detectors by name, their weights, and their detections."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foveate.detection import CONF, IOU, MAX_DET
from foveate.detection.detections import Detections
from foveate.detection.heads import OWN_MASK, YOLOV4_TINY_ANCHORS, YOLOV4_TINY_MASK, decode_all
from foveate.detection.nms import select
from foveate.errors import UsageError, nearest
from foveate.models import torchvision_nms
from foveate.models.darknet_file import is_darknet
from foveate.models.yolov4_tiny_layers import HEADS

DETECTORS = ("yolov4-tiny",)
COCO = [(float(width), float(height)) for width, height in YOLOV4_TINY_ANCHORS]
_ANCHORS = 6
_COCO_ANCHORS = [COCO[k] for row in reversed(YOLOV4_TINY_MASK) for k in row]
_COCO_CLASSES = 80

logger = logging.getLogger("foveate")


def build_detector(name: str, classes: int, anchors: Sequence[tuple[float, float]]) -> nn.Module:
    """Build a detector: images (N, 3, H, W) in 0..1 -> outputs, which its `heads` describe.

    `anchors` are six (width, height) in pixels of the input, smallest first: three for the fine output, then three for
    the coarse one. Raises UsageError for an unknown detector.
    """
    if name not in DETECTORS:
        raise UsageError(
            expected=f"a detector: {', '.join(DETECTORS)}", received=repr(name), do=nearest(name, DETECTORS)
        )
    from foveate.models.yolov4_tiny import YOLOv4Tiny

    return YOLOv4Tiny(classes, OWN_MASK, anchors=anchors)


def load_detector(model: Any, path: Path) -> tuple[str, ...]:
    """Load a Darknet file or a checkpoint; return the layers that were not loaded, such as heads for other classes.

    Raises:
        UsageError: no such file, or weights of another network.
        DataError: damaged weights.
    """
    from foveate.models.darknet import load_darknet
    from foveate.models.weights import load_weights

    if is_darknet(path):
        return load_darknet(model, path).kept
    return load_weights(model, path, model.classes)


def trained_anchors(path: Path, classes: int) -> list[tuple[float, float]] | None:
    """Return the anchors of the heads in a file of weights, as for `build_detector`; None if they are unknown.

    A Darknet file or one of a known layout is assumed to have COCO's anchors. For a file of a run or a study, they are
    in its data.json. They are unknown for heads of another number of classes, which are not loaded. Raises as
    `load_detector` does.
    """
    if is_darknet(path):
        from foveate.models import darknet_file, yolov4_tiny_layers

        table = yolov4_tiny_layers.table(yolov4_tiny_layers.head_outputs(YOLOV4_TINY_MASK, classes))
        heads = [conv for conv in darknet_file.read(path, table).convs if not conv.norm]
        same = heads and set(heads) <= set(table)
        return _COCO_ANCHORS if same else None
    anchors, names = _trained_for(path)
    if not anchors and path.is_file() and _published_classes(path) == classes:
        return _COCO_ANCHORS
    return anchors if anchors and len(names) == classes else None


def warn_of_heads(path: Path, classes: Sequence[str], anchors: Sequence[Any] | None) -> None:
    """Warn about heads from a file whose anchors are unknown or whose classes have other names.

    `anchors` are those of `trained_anchors`.
    """
    if anchors is None:
        logger.warning(
            "%s does not say which anchors its heads were trained for: the anchors of the data are used", path
        )
    elif anchors is _COCO_ANCHORS and len(classes) != _COCO_CLASSES:
        logger.warning(
            "%s cannot say which anchors its heads were trained for: those of yolov4-tiny.cfg are used", path
        )
    _, names = _trained_for(path)
    if names and names != list(classes):
        logger.warning(
            "%s was trained for the classes %s; they are read as %s, in this order",
            path,
            ", ".join(names),
            ", ".join(classes),
        )


def _published_classes(path: Path) -> int | None:
    """Return for how many classes the heads in a published file of a detector were trained; None if it is unknown."""
    from foveate.models.file_layouts import exact_layout
    from foveate.models.weights import read_weights, without_prefix

    weights = without_prefix(read_weights(path), set())
    layout = exact_layout(weights)
    heads = [name for name in layout.names if layout.names[name] in HEADS] if layout else []
    outputs = {len(weights[f"{head}.bias"]) // len(row) for head, row in zip(heads, YOLOV4_TINY_MASK, strict=False)}
    return outputs.pop() - 5 if len(outputs) == 1 else None


def _trained_for(path: Path) -> tuple[list[tuple[float, float]], list[str]]:
    """Return the anchors and classes in the data.json of the run or study that a file of weights belongs to."""
    for home in path.resolve().parents[1:4:2]:
        try:
            record = json.loads((home / "data.json").read_bytes())
            anchors = [(float(width), float(height)) for width, height in record["anchors"]]
            names = [str(name) for name in record["classes"]]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
        if len(anchors) == _ANCHORS:
            return anchors, names
    return [], []


@torch.inference_mode()
def detect(
    model: Any, images: Tensor, *, conf: float = CONF, iou: float = IOU, max_det: int = MAX_DET
) -> list[Detections]:
    """Run a detector in eval mode on images (N, 3, H, W) in 0..1; return the detections of each, in input pixels."""
    return detections(model, model(images), conf=conf, iou=iou, max_det=max_det)


def detections(model: Any, outputs: Sequence[Tensor], *, conf: float, iou: float, max_det: int) -> list[Detections]:
    """Return the detections in each image from the outputs of a detector.

    On CUDA torchvision selects them, if its operators load; elsewhere `foveate.detection.nms` does.
    """
    boxes, scores = (part.float() for part in decode_all(torch, outputs, model.heads))
    if torchvision_nms.fits(boxes):
        found = (torchvision_nms.select(b, s, conf, iou, max_det) for b, s in zip(boxes, scores, strict=True))
        return [Detections(*(part.cpu().numpy() for part in one)) for one in found]
    boxes, scores = boxes.cpu().numpy(), scores.cpu().numpy()
    return [Detections(*select(b, s, conf, iou, max_det)) for b, s in zip(boxes, scores, strict=True)]
