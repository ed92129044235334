"""Anchors from the data: k-means of box sizes under the distance 1 - IoU (YOLO9000, 1612.08242, section 2)."""

import numpy as np

from foveate.checks import check_least
from foveate.detection.boxes import Array, centred_iou
from foveate.errors import DataError

STARTS, STEPS = 5, 100  # k-means ends in a place that depends on its start; a step that changes nothing ends it sooner
MOST = 20_000  # sizes: a few numbers are not told better by more


def kmeans_anchors(sizes: Array, count: int, seed: int = 0) -> Array:
    """Return `count` anchors (count, 2) by rising area, in the unit of the sizes; `mean_best_iou` says how well they fit.

    A cluster's anchor is the median of its widths and heights, which a few huge boxes do not move as they would the mean. Of five
    starts, each spread over the sizes as k-means++ does, the one with the best mean IoU is returned; a seed always gives the same. Of more
    than 20,000 sizes it takes so many at random.

    Args:
        sizes: (M, 2), widths and heights; those without area are passed over.
        count: the number of anchors; sizes that differ less often are scaled by small steps until there are as many.
        seed: of the starts and of what is taken at random.

    Raises:
        UsageError: when `count` is not a whole number from 1 up.
        DataError: when no size has an area.
    """
    check_least("count", count, 1)
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    sizes = sizes[np.isfinite(sizes).all(1) & (sizes > 0).all(1)]
    if not len(sizes):
        raise DataError(expected="boxes with a width and a height", received="none", do="check the annotations of the training split")
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
    """Return the mean over sizes (M, 2) of the IoU with the best of the anchors (K, 2), both on one centre."""
    return float(centred_iou(np.asarray(sizes, np.float64), np.asarray(anchors, np.float64)).max(1).mean())


def _one_start(sizes: Array, weights: Array, count: int, rng: np.random.Generator) -> Array:
    """Lloyd's algorithm over different sizes, each with the number of boxes that have it."""
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
    """Return the sizes and, for as many as are missing, the same ones a tenth larger each time round: no two anchors are equal."""
    rounds = -(-count // len(sizes))
    return np.concatenate([sizes * 1.1**step for step in range(rounds)])[:count]
