"""The definitions in plain Python, number by number; the array code must give the same results."""

import math
from typing import Any

import numpy as np

from foveate.detection.heads import Head


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def iou(a: Any, b: Any) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height)


def aspect(a: Any, b: Any) -> float:
    return 4 / math.pi**2 * (math.atan2(b[2] - b[0], b[3] - b[1]) - math.atan2(a[2] - a[0], a[3] - a[1])) ** 2


def alpha(a: Any, b: Any) -> float:
    return aspect(a, b) / (1 - iou(a, b) + aspect(a, b)) if aspect(a, b) else 0.0


def ciou(a: Any, b: Any, weight: float | None = None) -> float:
    """Return CIoU; a given alpha is used as a constant."""
    squared = sum(((a[i] + a[i + 2]) / 2 - (b[i] + b[i + 2]) / 2) ** 2 for i in (0, 1))
    diagonal = sum((max(a[i + 2], b[i + 2]) - min(a[i], b[i])) ** 2 for i in (0, 1))
    return iou(a, b) - squared / diagonal - (alpha(a, b) if weight is None else weight) * aspect(a, b)


def box(output: np.ndarray, head: Head, a: int, row: int, column: int) -> list[float]:
    """Return the box of a cell of an anchor in an output (A * (5 + K), H, W)."""
    tx, ty, tw, th = output[a * (len(output) // len(head.anchors)) :, row, column][:4]
    x = (sigmoid(tx) * head.scale_xy - (head.scale_xy - 1) / 2 + column) * head.stride
    y = (sigmoid(ty) * head.scale_xy - (head.scale_xy - 1) / 2 + row) * head.stride
    width, height = math.exp(tw) * head.anchors[a][0], math.exp(th) * head.anchors[a][1]
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def loss(
    outputs: Any, targets: Any, heads: Any, weights: tuple[float, float, float], smoothing: float = 0.0
) -> dict[str, float]:
    sums, positives = [0.0, 0.0, 0.0], 0
    for output, target, head in zip(outputs, targets, heads, strict=True):
        channels = output.shape[1] // len(head.anchors)
        for n, a, row, column in np.ndindex(*target.shape[:4]):
            *truth, positive, weight, label = target[n, a, row, column]
            logits = output[n, a * channels + 4 : (a + 1) * channels, row, column]
            sums[1] -= weight * math.log(sigmoid(logits[0] if positive else -logits[0]))
            if positive:
                positives += 1
                sums[0] += 1 - ciou(box(output[n], head, a, row, column), truth)
                for k, logit in enumerate(logits[1:]):
                    wanted = (k == label) * (1 - smoothing) + smoothing / 2
                    sums[2] -= wanted * math.log(sigmoid(logit)) + (1 - wanted) * math.log(sigmoid(-logit))
    terms = [weight * total / max(positives, len(outputs[0])) for weight, total in zip(weights, sums, strict=True)]
    return dict(zip(("box", "objectness", "classes", "total"), [*terms, sum(terms)], strict=True))


def nms(boxes: Any, scores: Any, labels: Any, threshold: float) -> list[int]:
    """Return which boxes are kept by the definition: compare every candidate with every kept box."""
    kept: list[int] = []
    for i in sorted((i for i in range(len(scores)) if scores[i] == scores[i]), key=lambda i: (-scores[i], i)):
        if all(labels[i] != labels[j] or iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept
