"""Detections selected by torchvision are those of `foveate.detection.nms`."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import boxes as torchvision_boxes

from detection import by_formula
from foveate.detection import nms
from foveate.errors import UsageError
from foveate.models import torchvision_nms
from foveate.models.detectors import build_detector, detect

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def as_on_cuda(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Suppress by the definition, with a threshold in float32 as in torchvision's CUDA code."""
    assert boxes.dtype == scores.dtype, "torchvision refuses other scores"
    assert scores.unique().numel() == scores.numel(), "torchvision may take equal scores in any order"
    kept = by_formula.nms(boxes.tolist(), scores.tolist(), [0] * len(boxes), float(np.float32(threshold)))
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


@pytest.fixture(autouse=True)
def _operators(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torchvision_nms.runs_on("cpu"):
        monkeypatch.setattr(torchvision_boxes, "nms", as_on_cuda)


def candidates(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes on a coarse grid, some at negative places, some empty, and few different scores of three classes."""
    corner, side = rng.integers(-4, 6, (count, 2)), rng.integers(0, 11, (count, 2))
    boxes = np.concatenate([corner, corner + side], 1).astype(np.float32)
    return boxes, rng.choice([0.0, 0.1, 0.25, 0.3, 0.9, np.nan], (count, 3)).astype(np.float32)


def both(boxes: Any, scores: Any, device: str, *limits: Any) -> tuple[list[Any], list[Any]]:
    there = torchvision_nms.select(torch.tensor(boxes).to(device), torch.tensor(scores).to(device), *limits)
    return [part.tolist() for part in nms.select(boxes, scores, *limits)], [part.tolist() for part in there]


@pytest.mark.parametrize("device", DEVICES)
def test_random_sets_with_ties(device: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        some, threshold = candidates(rng, int(rng.integers(0, 14))), float(rng.choice([0.0, 0.2, 0.45, 0.5, 0.65, 1.0]))
        for limits in ((0.1, threshold, 300), (0.0, threshold, 5, 9)):
            ours, theirs = both(*some, device, *limits)
            assert ours == theirs


@pytest.mark.parametrize("device", DEVICES)
def test_sets_that_torchvision_suppresses_class_by_class(device: str) -> None:
    boxes, scores = candidates(np.random.default_rng(1), 700)
    ours, theirs = both(boxes, scores, device, 0.0, 0.45, 300)
    assert ours == theirs
    assert len(ours[0]) == 300


@pytest.mark.parametrize("device", DEVICES)
def test_an_overlap_equal_to_the_threshold_suppresses_no_box(device: str) -> None:
    """The second box covers 9 of 20 squares of the first, and 0.45 is below 9 / 20 in float32."""
    boxes, scores = np.array([[0, 0, 5, 4], [0, 0, 3, 3]], np.float32), np.array([[0.9], [0.8]], np.float32)
    ours, theirs = both(boxes, scores, device, 0.25, 0.45, 300)
    assert ours == theirs
    assert len(theirs[0]) == 2


@pytest.mark.parametrize("device", DEVICES)
def test_a_box_that_is_not_finite_does_not_join_the_classes(device: str) -> None:
    boxes, scores = candidates(np.random.default_rng(3), 12)
    ours = nms.select(boxes, scores, 0.1, 0.45)[0].tolist()
    boxes = np.concatenate([boxes, [[0, 0, np.inf, np.inf], [np.nan, 0, 9, 9]]]).astype(np.float32)
    scores = np.concatenate([scores, [[0.2, 0, 0], [0.2, 0, 0]]]).astype(np.float32)
    theirs = torchvision_nms.select(torch.tensor(boxes).to(device), torch.tensor(scores).to(device), 0.1, 0.45, 300)
    assert [box for box in theirs[0].tolist() if np.isfinite(box).all()] == ours


def test_wrong_limits_are_refused() -> None:
    with pytest.raises(UsageError, match="a confidence"):
        torchvision_nms.select(torch.zeros(1, 4), torch.zeros(1, 1), 2.0, 0.5, 300)


@pytest.mark.parametrize("device", DEVICES)
def test_the_detections_of_a_detector_are_the_same(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    torch.manual_seed(0)
    model = build_detector("yolov4-tiny", 3, [(8.0 * k, 8.0 * k) for k in range(1, 7)]).eval().to(device)
    images, found = torch.rand(2, 3, 64, 64, device=device), []
    for fits in (False, True):
        monkeypatch.setattr(torchvision_nms, "fits", lambda _, fits=fits: fits)
        found.append(detect(model, images, conf=0.0))
    for ours, theirs in zip(*found, strict=True):
        assert len(ours.boxes) > 2
        for name in ("boxes", "scores", "labels"):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def test_it_is_used_only_on_cuda_and_only_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    there = SimpleNamespace(is_cuda=True)
    for runs in (True, False):
        monkeypatch.setattr(torchvision_nms, "runs_on", lambda device, runs=runs: runs and device == "cuda")
        assert torchvision_nms.fits(there) is runs  # type: ignore[arg-type]
        assert not torchvision_nms.fits(torch.zeros(1, 4))
