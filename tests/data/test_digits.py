import hashlib
import itertools
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from foveate.data.digits.cluttered import SPLITS, DigitsOptions, Scenes, make_scenes
from foveate.errors import UsageError
from work import counted

SMALL = DigitsOptions(canvas=32, fragments=6, train=400, val=200, test=300, seed=3)


@pytest.fixture(scope="module")
def scenes() -> dict[str, Scenes]:
    return make_scenes(SMALL)


def digest(scenes: dict[str, Scenes]) -> str:
    parts = (part for split in SPLITS for part in (scenes[split].images, scenes[split].boxes.astype("<i8")))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def test_shapes_and_types(scenes: dict[str, Scenes]):
    for split, count in zip(SPLITS, (400, 200, 300), strict=True):
        part = scenes[split]
        assert part.images.shape == part.masks.shape == (count, 32, 32)
        assert (part.images.dtype, part.masks.dtype, part.boxes.dtype) == (np.uint8, bool, np.int64)
        assert part.boxes.shape == (count, 4)
        assert part.images.max() == 255


def test_same_options_same_bytes_on_every_machine(scenes: dict[str, Scenes]):
    assert digest(scenes) == digest(make_scenes(SMALL))
    assert digest(scenes)[:16] == "9da7f643d36eebd0"


@pytest.mark.parametrize("change", [{"seed": 4}, {"fragments": 7}, {"noise": 0.1}, {"canvas": 33}])
def test_every_option_counts(change: dict[str, Any], scenes: dict[str, Scenes]):
    assert digest(make_scenes(replace(SMALL, **change))) != digest(scenes)


def test_splits_never_share_a_source_digit(scenes: dict[str, Scenes]):
    used = {split: set(scenes[split].sources) | set(scenes[split].distractors.ravel()) for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not used[one] & used[other]


def test_fragments_come_from_other_digits(scenes: dict[str, Scenes]):
    for part in scenes.values():
        assert part.distractors.shape[1] == SMALL.fragments
        assert (part.distractors != part.sources[:, None]).all()


def test_labels_are_the_sources_labels_and_balanced(scenes: dict[str, Scenes]):
    from sklearn.datasets import load_digits

    target: Any = load_digits().target  # pyright: ignore[reportAttributeAccessIssue]
    for part in scenes.values():
        np.testing.assert_array_equal(part.labels, target[part.sources])
        counts = np.bincount(part.labels, minlength=10)
        assert counts.min() > 0.7 * counts.mean()


def test_every_source_serves_equally_often(scenes: dict[str, Scenes]):
    counts = np.unique(scenes["val"].sources, return_counts=True)[1]
    assert counts.max() - counts.min() <= 1


def test_boxes_are_tight_and_masks_are_ink(scenes: dict[str, Scenes]):
    for part in scenes.values():
        for image, mask, (left, top, right, bottom) in zip(part.images, part.masks, part.boxes, strict=True):
            assert mask[top:bottom, left:right].sum() == mask.sum() > 10
            assert mask[top].any()
            assert mask[bottom - 1].any()
            assert mask[:, left].any()
            assert mask[:, right - 1].any()
            assert image[mask].min() >= 64


def test_without_fragments_nothing_lies_outside_the_box():
    part = make_scenes(replace(SMALL, fragments=0))["train"]
    for image, (left, top, right, bottom) in zip(part.images, part.boxes, strict=True):
        outside = image.copy()
        outside[top:bottom, left:right] = 0
        assert outside.max() < 64


def test_the_digit_may_be_anywhere(scenes: dict[str, Scenes]):
    boxes = scenes["train"].boxes
    assert boxes.min() <= 2
    assert boxes.max() >= 30
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    assert np.abs(centres.mean(axis=0) - 16).max() < 1.5
    sides = boxes[:, 3] - boxes[:, 1]
    assert 8 <= np.median(sides) <= 13


def test_fragments_are_clutter_and_not_digits(scenes: dict[str, Scenes]):
    """Together they have as much ink as the digit, but none is half as wide as a digit."""
    part = scenes["train"]
    clutter = (part.images >= 64) & ~part.masks
    assert 0.5 < clutter.sum() / part.masks.sum() < 4
    assert round(SMALL.canvas * 0.125) <= 0.5 * (part.boxes[:, 3] - part.boxes[:, 1]).mean()


def test_all_scenes_are_drawn_at_once():
    def calls(count: int) -> int:
        with counted() as work:
            make_scenes(replace(SMALL, train=count, val=count, test=count))
        return work.calls

    calls(10)  # reads the digits
    assert calls(40) <= calls(10) + 30


@pytest.mark.parametrize(
    "wrong",
    [
        {"canvas": 8},
        {"canvas": 64.0},
        {"canvas": 10**6},
        {"fragments": -1},
        {"train": 0},
        {"val": True},
        {"test": 10**9},
        {"seed": -1},
        {"noise": 1.5},
        {"noise": float("nan")},
        {"channels": 2},
        {"canvas": 512, "train": 200_000},
    ],
    ids=str,
)
def test_wrong_options_are_refused(wrong: dict[str, Any]):
    with pytest.raises(UsageError):
        DigitsOptions(**wrong)


def test_without_scikit_learn_the_fix_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UsageError, match=r'pip install "foveate\[study\]"'):
        make_scenes(SMALL)
