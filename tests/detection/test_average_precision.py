import importlib
import math
from typing import Any

import numpy as np
import pytest

from foveate.detection.average_precision import NUMBERS, Detections, GroundTruth, average_precision
from foveate.detection.coco_engine import CocoEngine
from foveate.errors import DataError, UsageError

by_pycocotools = pytest.importorskip(
    "detection.by_pycocotools", reason="needs pycocotools (pip install foveate[detect])"
)
ENGINES: tuple[CocoEngine, ...] = ("faster-coco-eval", "pycocotools")
SEEDS = [range(start, start + 30) for start in range(0, 240, 30)]

NOTHING = Detections(np.zeros((0, 4)), [], [])
EMPTY = GroundTruth(np.zeros((0, 4)), [])


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return boxes of all of COCO's sizes, with sides from 8 to 200 pixels."""
    corner = rng.uniform(0, 200, (count, 2))
    return np.concatenate([corner, corner + np.exp(rng.uniform(math.log(8), math.log(200), (count, 2)))], 1)


def random_picture(rng: np.random.Generator, classes: int, most: int) -> tuple[GroundTruth, Detections]:
    """Return ground truth with crowd and difficult boxes, and detections near it or elsewhere, many of equal scores."""
    count, extra = int(rng.integers(0, 6)), int(rng.integers(0, most + 1))
    boxes, labels = random_boxes(rng, count), rng.integers(0, classes, count)
    truth = GroundTruth(boxes, labels, rng.random(count) < 0.15, rng.random(count) < 0.15)
    again = np.repeat(np.arange(count), rng.integers(0, 4, count))
    near = boxes[again] + rng.normal(0, 4, (len(again), 4))
    found_boxes = np.concatenate(
        [np.concatenate([near[:, :2], np.maximum(near[:, 2:], near[:, :2])], 1), random_boxes(rng, extra)]
    )
    found_labels = np.concatenate(
        [np.where(rng.random(len(again)) < 0.8, labels[again], 0), rng.integers(0, classes, extra)]
    )
    order = rng.permutation(len(found_boxes))
    scores = (
        rng.choice([0.1, 0.2, 0.3, 0.5, 0.5, 0.9, 1.0], len(order)) if rng.random() < 0.5 else rng.random(len(order))
    )
    return truth, Detections(found_boxes[order], scores, found_labels[order])


def random_set(seed: int) -> tuple[list[GroundTruth], list[Detections], int]:
    """Return a few images.

    Of eight sets, one has no detections, one no ground truth, one a class without ground truth and detections, and one
    more than 100 detections of a class.
    """
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(1, 4))
    pictures = [
        random_picture(rng, classes, 260 if seed % 8 == 3 and i == 0 else 4) for i in range(int(rng.integers(1, 5)))
    ]
    truths, found = [truth for truth, _ in pictures], [detections for _, detections in pictures]
    match seed % 8:
        case 0:
            found = [NOTHING for _ in found]
        case 1:
            truths = [EMPTY for _ in truths]
        case 2:
            classes += 1
        case 4:
            truths[0] = EMPTY
        case 5:
            found[0] = NOTHING
    return truths, found, classes


def same(numbers: dict[str, float], wanted: np.ndarray) -> bool:
    values = np.array(list(numbers.values()))
    return bool(np.allclose(values, np.where(wanted < 0, np.nan, wanted), rtol=0, atol=1e-12, equal_nan=True))


@pytest.mark.parametrize("group", range(len(SEEDS)))
@pytest.mark.reliability(23)
def test_the_twelve_numbers_are_those_of_pycocotools(group: int, tried: Any) -> None:
    wrong = []
    for seed in SEEDS[group]:
        truths, found, classes = random_set(seed)
        wanted = by_pycocotools.numbers(truths, found, classes)
        numbers = {engine: average_precision(truths, found, classes, engine=engine).numbers for engine in ENGINES}
        wrong += [(seed, engine) for engine in ENGINES if not same(numbers[engine], wanted)]
    assert wrong == []
    tried(len(SEEDS[group]))


def test_the_sets_hold_what_they_must() -> None:
    sets = [random_set(seed) for seeds in SEEDS for seed in seeds]
    assert len(sets) >= 200
    assert any(np.bincount(each.labels).max(initial=0) > 100 for _, found, _ in sets for each in found)
    assert any(truth.crowd.any() for truths, *_ in sets for truth in truths)
    assert any(truth.difficult.any() for truths, *_ in sets for truth in truths)
    assert any(
        len(truth.boxes) == 0 and len(each.boxes)
        for truths, found, _ in sets
        for truth, each in zip(truths, found, strict=True)
    )
    assert any(len(np.unique(each.scores)) < len(each.scores) for _, found, _ in sets for each in found)
    assert any(not any(len(each.boxes) for each in found) for _, found, _ in sets)


@pytest.mark.parametrize("mistake", ["crowd", "difficult", "labels", "scores", "boxes", "order"])
def test_a_planted_mistake_is_seen(mistake: str) -> None:
    """Each mistake is in the input of the engine; at least one of several sets must then differ."""

    def spoil(truth: GroundTruth, found: Detections) -> None:
        match mistake:
            case "crowd" | "difficult":
                setattr(truth, mistake, np.zeros(len(truth.boxes), bool))
            case "labels":
                found.labels = found.labels[::-1]
            case "scores":
                found.scores = 1 - found.scores
            case "boxes":
                found.boxes = found.boxes + 1
            case "order":
                found.boxes, found.scores, found.labels = found.boxes[::-1], found.scores[::-1], found.labels[::-1]

    for seed in (5, 6, 7, 13, 14, 15):
        truths, found, classes = random_set(seed)
        wanted = by_pycocotools.numbers(truths, found, classes)
        for pair in zip(truths, found, strict=True):
            spoil(*pair)
        if not same(average_precision(truths, found, classes).numbers, wanted):
            return
    pytest.fail("not seen")


BOX, FAR = [0, 0, 40, 40], [100, 100, 140, 140]


@pytest.mark.parametrize("engine", ENGINES)
def test_numbers_by_hand(engine: CocoEngine) -> None:
    """Three classes with known results.

    Class 0: of two detections the first is right and the second wrong, and one of two objects is found. So the
    precision is 1 up to a recall of 0.5, at 51 of 101 points. The match covers 40 x 40 of 40 x 50, an IoU of 0.8, so it
    is right at 7 of 10 thresholds. Class 1 has a detection but no ground truth, class 2 ground truth but no detection.
    """
    truths = [GroundTruth([[0, 0, 40, 50], FAR], [0, 0]), GroundTruth([BOX], [2])]
    found = [Detections([BOX, [200, 0, 240, 40]], [0.9, 0.8], [0, 0]), Detections([BOX], [0.7], [1])]
    scores = average_precision(truths, found, 3, engine=engine)
    half = 51 / 101
    assert scores.numbers["ap50"] == pytest.approx((half + 0) / 2, abs=1e-12)
    assert scores.numbers["ap"] == pytest.approx((half * 0.7 + 0) / 2, abs=1e-12)
    assert scores.numbers["ar_100"] == pytest.approx((0.5 * 0.7 + 0) / 2, abs=1e-12)
    assert math.isnan(scores.numbers["ap_small"])
    assert math.isnan(scores.numbers["ap_large"])
    assert list(scores.numbers) == list(NUMBERS)
    first, second, third = scores.classes
    assert (first.truths, first.detections, second.truths, second.detections, third.truths, third.detections) == (
        2,
        2,
        0,
        1,
        1,
        0,
    )
    assert (first.ap50, third.ap50) == (pytest.approx(half), 0)
    assert first.ap == pytest.approx(0.7 * half)
    assert math.isnan(second.ap50)
    assert first.precision.tolist() == pytest.approx([1] * 51 + [0] * 50)
    assert first.scores.tolist() == pytest.approx([0.9] * 51 + [0] * 50)
    assert np.isnan(second.precision).all()
    assert scores.engine == engine


def one(truth: GroundTruth, found: Detections) -> float:
    return average_precision([truth, GroundTruth([BOX], [0])], [found, Detections([BOX], [0.1], [0])], 1).numbers[
        "ap50"
    ]


def test_difficult_and_crowd_by_hand() -> None:
    """In a second image an object is found at 0.1; a false detection at 0.9 in the first halves the precision."""
    on, twice = Detections([BOX], [0.9], [0]), Detections([BOX, BOX], [0.9, 0.8], [0, 0])
    assert one(EMPTY, on) == pytest.approx(0.5)
    assert one(GroundTruth([BOX], [0], difficult=[True]), on) == pytest.approx(1)
    assert one(GroundTruth([BOX], [0], difficult=[True]), twice) == pytest.approx(0.5)
    assert one(GroundTruth([BOX], [0], crowd=[True]), twice) == pytest.approx(1)
    part = Detections([[0, 0, 10, 40]], [0.9], [0])  # a quarter of the box, wholly inside it
    assert one(GroundTruth([BOX], [0], crowd=[True]), part) == pytest.approx(1)
    assert one(GroundTruth([BOX], [0], difficult=[True]), part) == pytest.approx(0.5)


def test_the_area_may_be_that_of_the_outline() -> None:
    """An object of 40 x 40 is medium by its box, but small by an outline of 500 square pixels."""
    found = [Detections([BOX], [1.0], [0])]
    assert average_precision([GroundTruth([BOX], [0])], found, 1).numbers["ap_medium"] == pytest.approx(1)
    assert average_precision([GroundTruth([BOX], [0], areas=[500])], found, 1).numbers["ap_small"] == pytest.approx(1)


def test_confusion_by_hand() -> None:
    """Objects of class 0: one is found, one is found as class 1, one is missed; there are none of class 1.

    Of the other detections, one is on the background, one on a crowd, and one has a low score.
    """
    truth = GroundTruth(
        [BOX, FAR, [300, 0, 340, 40], [0, 300, 90, 390]], [0, 0, 0, 1], crowd=[False, False, False, True]
    )
    boxes = [BOX, BOX, FAR, [500, 0, 540, 40], [10, 310, 30, 330], [300, 0, 340, 40]]
    found = Detections(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.25], [0, 1, 1, 1, 1, 0])
    scores = average_precision([truth], [found], 2)
    # the object at BOX is already matched, so the second detection there counts as one on the background
    assert scores.confusion.tolist() == [[1, 1, 1], [0, 0, 0], [0, 2, 0]]
    assert average_precision([truth], [found], 2, conf=0.2).confusion.tolist() == [[2, 1, 0], [0, 0, 0], [0, 2, 0]]
    assert average_precision([truth], [NOTHING], 2).confusion.tolist() == [[0, 0, 3], [0, 0, 0], [0, 0, 0]]
    assert average_precision([EMPTY], [found], 2).confusion.tolist() == [[0, 0, 0], [0, 0, 0], [1, 4, 0]]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for engine in ENGINES:
        average_precision([GroundTruth([BOX], [0])], [Detections([BOX], [0.5], [0])], 1, engine=engine)
    assert capfd.readouterr() == ("", "")


def test_detections_that_are_not_finite_are_left_out() -> None:
    """The detections of a network that diverges are dropped, and the run continues."""
    bad = [[0, 0, math.nan, 40], [40, 40, 0, 0], [0, 0, math.inf, 1], BOX, BOX]
    found = Detections(bad, [0.9, 0.9, 0.9, math.nan, 0.5], [0] * 5)
    assert found.boxes.tolist() == [BOX]
    assert average_precision([GroundTruth([BOX], [0])], [found], 1).numbers["ap"] == pytest.approx(1)


@pytest.mark.parametrize(
    "boxes",
    [
        [[0, 0, math.nan, 4]],
        [[-math.inf, 0, math.inf, 4]],
        [[math.inf, 0, math.inf, 4]],
        [[5, 5, 4, 9]],
        [[0, 0, math.inf, 4]],
    ],
)
def test_ground_truth_that_is_not_a_box_is_refused(boxes: Any) -> None:
    with pytest.raises(DataError, match="finite numbers"):
        GroundTruth(boxes, [0])


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: average_precision([], [], 1), DataError, "at least one image"),
        (lambda: average_precision([EMPTY], [], 1), UsageError, "each image"),
        (lambda: average_precision([GroundTruth([BOX], [2])], [NOTHING], 2), UsageError, "labels from 0 to 1"),
        (lambda: average_precision([EMPTY], [Detections([BOX], [0.5], [-1])], 2), UsageError, "labels from 0 to 1"),
        (lambda: average_precision([EMPTY], [NOTHING], 0), UsageError, "classes"),
        (lambda: GroundTruth([BOX], [0, 1]), UsageError, "1 boxes, 2 labels"),
        (lambda: Detections([BOX], [], [0]), UsageError, "0 scores"),
    ],
)
def test_wrong_arguments_are_refused(call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    ordinary = importlib.import_module

    def load(name: str) -> Any:
        if name.split(".")[0] in missing:
            raise ImportError(name)
        return ordinary(name)

    monkeypatch.setattr(importlib, "import_module", load)


def test_one_engine_is_enough_and_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    truths, found = [GroundTruth([BOX], [0])], [Detections([BOX], [0.5], [0])]
    without(monkeypatch, "faster_coco_eval")
    assert average_precision(truths, found, 1).engine == "pycocotools"
    without(monkeypatch, "faster_coco_eval", "pycocotools")
    with pytest.raises(UsageError, match=r'pip install "foveate\[detect\]"'):
        average_precision(truths, found, 1)
