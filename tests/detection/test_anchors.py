import numpy as np
import pytest

from foveate.detection.anchors import kmeans_anchors, mean_best_iou
from foveate.errors import DataError, UsageError

CENTRES = np.array([[10, 14], [30, 12], [40, 60], [150, 140]], float)


def clusters(spread: float = 0.05, each: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    sizes = np.repeat(CENTRES, each, 0) * np.exp(rng.normal(0, spread, (len(CENTRES) * each, 2)))
    return rng.permutation(sizes)


def test_clusters_are_found() -> None:
    anchors = kmeans_anchors(clusters(), 4)
    np.testing.assert_allclose(anchors, CENTRES, rtol=0.03)
    assert mean_best_iou(clusters(), anchors) > 0.9


def test_mean_best_iou_by_hand() -> None:
    """The IoU of 2 x 2 is 4 / 8 with 2 x 4 and 1 with itself; that of 4 x 4 is 8 / 16 with 2 x 4, 4 / 16 with 2 x 2."""
    assert mean_best_iou(np.array([[2, 2], [4, 4]]), np.array([[2, 4], [2, 2]])) == (1 + 0.5) / 2


def test_the_anchor_of_a_cluster_is_its_median() -> None:
    anchors = kmeans_anchors(np.array([[10, 10]] * 5 + [[11, 11]] * 2 + [[18, 18]]), 1)
    assert anchors.tolist() == [[10, 10]]


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_gives_the_same_anchors_in_any_order_of_boxes(seed: int) -> None:
    sizes = clusters(spread=0.5)
    first = kmeans_anchors(sizes, 5, seed)
    again = kmeans_anchors(sizes[::-1], 5, seed)
    assert first.tolist() == again.tolist()


def test_more_anchors_fit_better_and_rise_in_area() -> None:
    fits = []
    for count in (1, 2, 4, 6, 9):
        anchors = kmeans_anchors(clusters(spread=0.5), count)
        assert (np.diff(anchors.prod(1)) >= 0).all()
        fits.append(mean_best_iou(clusters(spread=0.5), anchors))
    assert fits == sorted(fits)


def test_they_fit_better_than_random_sizes() -> None:
    sizes, rng = clusters(spread=0.5), np.random.default_rng(0)
    by_chance = [mean_best_iou(sizes, sizes[rng.choice(len(sizes), 6, replace=False)]) for _ in range(50)]
    assert mean_best_iou(sizes, kmeans_anchors(sizes, 6)) > max(by_chance)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_fewer_sizes_than_anchors(count: int) -> None:
    sizes = np.array([[10, 10]] * 4 + [[20, 40]] * 3)
    anchors = kmeans_anchors(sizes, count)
    assert anchors.shape == (count, 2)
    assert len(np.unique(anchors, axis=0)) == count
    assert mean_best_iou(sizes, anchors) == 1


def test_boxes_without_area_are_skipped() -> None:
    sizes = np.array([[0, 5], [-3, 4], [np.nan, 2], [7, 9]])
    assert kmeans_anchors(sizes, 1).tolist() == [[7, 9]]


def test_no_boxes_are_refused() -> None:
    with pytest.raises(DataError, match="width and a height"):
        kmeans_anchors(np.zeros((3, 2)), 2)
    with pytest.raises(UsageError, match="count"):
        kmeans_anchors(CENTRES, 0)
