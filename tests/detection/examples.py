"""Random boxes, outputs and targets for the tests of detection."""

import numpy as np

from foveate.detection.assign import assign
from foveate.detection.heads import Head, make_heads

SIZE = (96, 64)
CLASSES = 3
HEADS = make_heads([(8, 10), (14, 20), (30, 24), (60, 50)], [(2, 3), (0, 1, 2)])


def random_boxes(rng: np.random.Generator, count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Return boxes (M, 4) inside the size, with sides of at least 2 pixels."""
    centre, half = rng.uniform(4, np.array(size) - 4, (count, 2)), rng.uniform(1, np.array(size) / 3, (count, 2))
    boxes = np.concatenate([np.maximum(centre - half, 0), np.minimum(centre + half, size)], 1)
    return boxes.astype(np.float32)


def random_targets(rng: np.random.Generator, images: int, heads: tuple[Head, ...] = HEADS) -> list[np.ndarray]:
    """Return targets of every head (N, A, H, W, 7); the second image has no objects, the others an ignored box."""
    each = []
    for image in range(images):
        count = 0 if image == 1 else 4
        boxes, labels = random_boxes(rng, count), rng.integers(0, CLASSES, count)
        each.append(assign(boxes, labels, heads, SIZE, CLASSES, random_boxes(rng, 1) if count else None))
    return [np.stack(parts) for parts in zip(*each, strict=True)]


def random_outputs(rng: np.random.Generator, images: int, heads: tuple[Head, ...] = HEADS) -> list[np.ndarray]:
    """Return outputs of every head (N, A * (5 + K), H, W), float64."""
    return [
        rng.normal(size=(images, len(head.anchors) * (5 + CLASSES), SIZE[1] // head.stride, SIZE[0] // head.stride))
        * 0.7
        for head in heads
    ]
