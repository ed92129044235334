"""Anchors from the data: k-means of box sizes under the distance 1 - IoU (YOLO9000, 1612.08242, section 2)."""

import numpy as np

from foveate.checks import check_least
from foveate.detection.boxes import Array, centred_iou
from foveate.errors import DataError

STARTS, STEPS = 5, 100  # the result of k-means depends on its start; it stops early after a step that changes nothing
MOST = 20_000  # sizes: more would hardly change the medians


def kmeans_anchors(sizes: Array, count: int, seed: int = 0) -> Array:
    """Return anchors (count, 2) by rising area, in the unit of the sizes; `mean_best_iou` says how well they fit.

    The anchor of a cluster has the median of its widths and of its heights, since a few huge boxes would change the
    mean. There are five starts by k-means++; the result with the highest mean IoU is returned. A seed always gives the
    same anchors. Of more than 20,000 sizes, 20,000 are chosen at random.

    Args:
        sizes: (M, 2), widths and heights; those without area are skipped.
        count: the number of anchors; if there are fewer different sizes, scaled copies of them are added.
        seed: of the starts and of the random choice.

    Raises:
        UsageError: when `count` is not a whole number of at least 1.
        DataError: when no size has an area.
    """
    check_least("count", count, 1)
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    sizes = sizes[np.isfinite(sizes).all(1) & (sizes > 0).all(1)]
    if not len(sizes):
        raise DataError(
            expected="boxes with a width and a height",
            received="none",
            do="check the annotations of the training split",
        )
    rng = np.random.default_rng(seed)
    if len(sizes) > MOST:
        sizes = rng.choice(sizes, MOST, replace=False)
    different, weights = np.unique(sizes, axis=0, return_counts=True)
    if len(different) <= count:
        anchors = _filled(different, count)
    else:
        found = [_one_start(different, weights, count, rng) for _ in range(STARTS)]
        anchors = max(found, key=lambda anchors: mean_best_iou(sizes, anchors))
    return anchors[np.lexsort((anchors[:, 0], anchors.prod(1)))]


def mean_best_iou(sizes: Array, anchors: Array) -> float:
    """Return the mean over sizes (M, 2) of the IoU with the best anchor of (K, 2), with equal centres."""
    return float(centred_iou(np.asarray(sizes, np.float64), np.asarray(anchors, np.float64)).max(1).mean())


def _one_start(sizes: Array, weights: Array, count: int, rng: np.random.Generator) -> Array:
    """Run Lloyd's algorithm over the different sizes; a weight is the number of boxes of that size."""
    anchors = sizes[rng.choice(len(sizes), 1, p=weights / weights.sum())]
    while len(anchors) < count:
        far = weights * (1 - centred_iou(sizes, anchors).max(1)) ** 2
        anchors = np.concatenate([anchors, sizes[rng.choice(len(sizes), 1, p=far / far.sum())]])
    nearest = np.full(len(sizes), -1)
    for _ in range(STEPS):
        before, nearest = nearest, centred_iou(sizes, anchors).argmax(1)
        if (nearest == before).all():
            break
        for k in np.unique(nearest):
            mine = nearest == k
            anchors[k] = np.median(np.repeat(sizes[mine], weights[mine], axis=0), axis=0)
    return anchors


def _filled(sizes: Array, count: int) -> Array:
    """Return `count` different sizes: the given ones, then the same 10 % larger, and so on."""
    rounds = -(-count // len(sizes))
    return np.concatenate([sizes * 1.1**step for step in range(rounds)])[:count]
