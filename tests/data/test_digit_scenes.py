import hashlib
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from foveate.data.digits.scene_parts import INK
from foveate.data.digits.scenes import BoxScenes, DigitScenesOptions, make_box_scenes
from foveate.data.splits import SPLITS
from foveate.detection.boxes import areas, intersections
from foveate.errors import UsageError
from work import counted

SMALL = DigitScenesOptions(canvas=96, train=150, val=40, test=60, seed=3)


@pytest.fixture(scope="module")
def scenes() -> dict[str, BoxScenes]:
    return make_box_scenes(SMALL)


def digest(scenes: dict[str, BoxScenes]) -> str:
    return hashlib.sha256(
        b"".join(part.tobytes() for split in SPLITS for part in (scenes[split].images, *scenes[split].boxes))
    ).hexdigest()


def test_shapes_and_types(scenes: dict[str, BoxScenes]):
    for split, count in zip(SPLITS, (150, 40, 60), strict=True):
        part = scenes[split]
        assert part.images.shape == (count, 96, 96)
        assert part.images.dtype == np.uint8
        assert len(part.boxes) == len(part.labels) == len(part.sources) == count
        for boxes, labels, sources in zip(part.boxes, part.labels, part.sources, strict=True):
            assert boxes.shape == (len(labels), 4)
            assert 1 <= len(labels) == len(sources) <= 6
            assert (boxes.dtype, labels.dtype) == (np.float32, np.int64)


def test_same_options_same_bytes_on_every_machine(scenes: dict[str, BoxScenes]):
    assert digest(scenes) == digest(make_box_scenes(SMALL))
    assert digest(scenes)[:16] == "8bf1b88f94ab5094"


@pytest.mark.parametrize("change", [{"seed": 4}, {"fragments": 7}, {"digits": 3}, {"canvas": 97}])
def test_every_option_counts(change: dict[str, Any], scenes: dict[str, BoxScenes]):
    assert digest(make_box_scenes(replace(SMALL, **change))) != digest(scenes)


def test_splits_never_share_a_source_digit(scenes: dict[str, BoxScenes]):
    used = {
        split: set(np.concatenate(scenes[split].sources)) | set(scenes[split].distractors.ravel()) for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not used[one] & used[other]


def test_labels_are_the_sources_labels(scenes: dict[str, BoxScenes]):
    from sklearn.datasets import load_digits

    target: Any = load_digits().target  # pyright: ignore[reportAttributeAccessIssue]
    for part in scenes.values():
        np.testing.assert_array_equal(np.concatenate(part.labels), target[np.concatenate(part.sources)])


def test_boxes_are_tight_around_the_ink():
    for image, boxes in zip(
        *(getattr(make_box_scenes(replace(SMALL, fragments=0))["train"], name) for name in ("images", "boxes")),
        strict=True,
    ):
        outside = image >= INK
        for left, top, right, bottom in boxes.astype(int):
            ink = image[top:bottom, left:right] >= INK
            assert ink[0].any()
            assert ink[-1].any()
            assert ink[:, 0].any()
            assert ink[:, -1].any()
            outside[top:bottom, left:right] = False
        assert not outside.any()


def test_digits_hardly_overlap_and_come_in_all_sizes_and_places(scenes: dict[str, BoxScenes]):
    for boxes in scenes["train"].boxes:
        shared = intersections(boxes, boxes) / np.minimum(areas(boxes)[:, None], areas(boxes))
        assert shared[~np.eye(len(boxes), dtype=bool)].max(initial=0) <= 0.1
    every = np.concatenate(scenes["train"].boxes)
    heights = every[:, 3] - every[:, 1]
    assert heights.max() > 3 * heights.min()
    assert every[:, :2].min() <= 2
    assert every[:, 2:].max() >= 94
    assert np.abs((every[:, :2] + every[:, 2:]).mean(axis=0) / 2 - 48).max() < 4


@pytest.mark.parametrize("tries", [40, 1])
def test_fragments_leave_the_digits_readable(tries: int, monkeypatch: pytest.MonkeyPatch):
    """Also if no good place is found in time and a fragment is left out."""
    monkeypatch.setattr("foveate.data.digits.scenes._TRIES", tries)
    cluttered = make_box_scenes(SMALL)["train"]
    bare = make_box_scenes(replace(SMALL, fragments=0))["train"]
    covered = ink = 0
    for image, plain, boxes in zip(cluttered.images, bare.images, bare.boxes, strict=True):
        for left, top, right, bottom in boxes.astype(int):
            covered += ((image >= INK) & (plain < INK))[top:bottom, left:right].sum()
            ink += (plain >= INK)[top:bottom, left:right].sum()
    assert 0 < covered < 0.05 * ink
    assert (cluttered.images >= INK).sum() > 1.3 * (bare.images >= INK).sum()


def test_one_more_scene_is_little_more_work():
    def calls(count: int) -> int:
        with counted() as work:
            make_box_scenes(replace(SMALL, train=count, val=count, test=count))
        return work.calls

    calls(10)  # reads the digits
    assert calls(40) - calls(10) < 200 * 3 * 30


@pytest.mark.parametrize(
    "wrong",
    [
        {"canvas": 8},
        {"canvas": 64.0},
        {"digits": 0},
        {"digits": 99},
        {"fragments": -1},
        {"train": 0},
        {"val": True},
        {"seed": -1},
    ],
    ids=str,
)
def test_wrong_options_are_refused(wrong: dict[str, Any]):
    with pytest.raises(UsageError):
        DigitScenesOptions(**wrong)
