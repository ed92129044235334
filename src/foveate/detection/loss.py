"""The loss of a detector's outputs against dense targets: CIoU, objectness and classes."""

import math
from collections.abc import Sequence
from typing import Any

from foveate.detection.arrays import constant, positions, softplus
from foveate.detection.assign import LABEL, POSITIVE, WEIGHT
from foveate.detection.heads import Head, by_anchor, decode_boxes

# Every term is a sum over cells, as in Darknet, divided by the number of positive cells: neither the size of the input
# nor the number of objects changes the balance of the terms, and no head needs its own weight. After a short training,
# Darknet's iou_normalizer for this network, 0.07, gives inexact boxes, and YOLOX's 5 (2107.08430) gives poor classes.
# On digit scenes, 14 epochs from random weights, a weight of 2 gave a higher AP50 than 5 with both of two seeds (0.28
# and 0.39 against 0.19 and 0.21), and a higher AP (one seed) than 1 and 0.07.
BOX, OBJECTNESS, CLASSES = 2.0, 1.0, 1.0
TINY = 1e-7  # square pixels or pixels: keeps quotients of empty boxes finite


def detection_loss(
    xp: Any,
    outputs: Sequence[Any],
    targets: Sequence[Any],
    heads: Sequence[Head],
    *,
    box: float = BOX,
    objectness: float = OBJECTNESS,
    classes: float = CLASSES,
    smoothing: float = 0.0,
    channels_last: bool = False,
    count: float | None = None,
) -> dict[str, Any]:
    """Return the weighted terms `box`, `objectness` and `classes`, and their sum `total`, as scalars of the framework.

    box = sum of 1 - CIoU over positives; objectness = sum of the binary cross entropy over all cells of weight 1, its
    target 1 at positives; classes = sum of the binary cross entropies of all classes over positives. Each is divided by
    the number of positives in the batch, or by the number of images if that is larger, so that a batch of empty images
    does not have more weight than others.

    Args:
        xp: torch, keras.ops or NumPy.
        outputs: of each head (N, A * (5 + K), H, W), or (N, H, W, A * (5 + K)) with channels_last; float32 or float64.
        targets: of each head (N, A, H, W, 7), as `assign` makes them, of the same type as the outputs.
        heads: of the detector.
        box: the weight of the boxes.
        objectness: the weight of the objectness.
        classes: the weight of the classes.
        smoothing: label smoothing of the classes, from 0 to 1: targets move from 0 and 1 towards 1/2 (Darknet's
            label_smooth_eps).
        channels_last: whether the outputs have the channels last.
        count: the divisor of the sums, instead of the one above; 1 where the losses of several batches are added up.
    """
    terms = [
        _sums(xp, by_anchor(xp, output, head, channels_last), target, head, smoothing)
        for output, target, head in zip(outputs, targets, heads, strict=True)
    ]
    boxes, objects, kinds, positives = (sum(parts[1:], parts[0]) for parts in zip(*terms, strict=True))
    images = xp.sum(xp.ones_like(targets[0][:, 0, 0, 0, 0]))
    divisor: Any = xp.maximum(positives, images) if count is None else count
    parts = {
        "box": box * boxes / divisor,
        "objectness": objectness * objects / divisor,
        "classes": classes * kinds / divisor,
    }
    return {**parts, "total": parts["box"] + parts["objectness"] + parts["classes"]}


def ciou(xp: Any, a: Any, b: Any) -> Any:
    """Return the complete IoU (...) of pairs of boxes a and b (..., 4), xyxy in pixels; no NaN for empty boxes.

    Distance-IoU Loss (1911.08287): eq. 8-11, CIoU = IoU - d^2 / c^2 - alpha v, with d between the centres, c the
    diagonal of the box around both, v = 4 / pi^2 (atan(w_b / h_b) - atan(w_a / h_a))^2 and alpha = v / (1 - IoU + v), a
    constant for the gradient. The paper's code also removes the factor 1 / (w^2 + h^2) from v's gradient, since its
    sizes are below 1; in pixels that factor is harmless and is kept.
    """
    width_a, height_a, width_b, height_b = (box[..., i + 2] - box[..., i] for box in (a, b) for i in (0, 1))
    low, high = xp.minimum(a[..., :2], b[..., :2]), xp.maximum(a[..., 2:4], b[..., 2:4])
    common = xp.clip(xp.minimum(a[..., 2:4], b[..., 2:4]) - xp.maximum(a[..., :2], b[..., :2]), 0.0, math.inf)
    intersection = common[..., 0] * common[..., 1]
    iou = intersection / (width_a * height_a + width_b * height_b - intersection + TINY)
    apart = (a[..., :2] + a[..., 2:4] - b[..., :2] - b[..., 2:4]) / 2
    distance = xp.sum(apart * apart, -1) / (xp.sum((high - low) * (high - low), -1) + TINY)
    v = 4 / math.pi**2 * (xp.arctan(width_b / (height_b + TINY)) - xp.arctan(width_a / (height_a + TINY))) ** 2
    alpha = constant(xp, v / (1 - iou + v + TINY))
    return iou - distance - alpha * v


def binary_cross_entropy(xp: Any, logits: Any, targets: Any) -> Any:
    """Return -t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)) for logits x and targets t in 0..1, without overflow."""
    return softplus(xp, logits) - logits * targets


def _sums(xp: Any, values: Any, target: Any, head: Head, smoothing: float) -> tuple[Any, Any, Any, Any]:
    """Return the sums of the three terms over one head's cells, and the number of its positives."""
    positive, labels = target[..., POSITIVE], target[..., LABEL]
    boxes = (1 - ciou(xp, decode_boxes(xp, values, head), target[..., :4])) * positive
    objects = binary_cross_entropy(xp, values[..., 4], positive) * target[..., WEIGHT]
    # 1 - |label - k| clipped at 0 is one-hot, without a function whose name differs between frameworks.
    classes = positions(xp, values.shape[-1] - 5, values)
    one_hot = xp.clip(1 - xp.abs(labels[..., None] - classes), 0.0, 1.0)
    kinds = binary_cross_entropy(xp, values[..., 5:], one_hot * (1 - smoothing) + smoothing / 2) * positive[..., None]
    return xp.sum(boxes), xp.sum(objects), xp.sum(kinds), xp.sum(positive)
