"""The file of a detector: its outputs, boxes, or the boxes that NMS keeps, equal to those that `detect` returns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.detection.heads import Head
from foveate.detection.nms import select
from foveate.exporting.detector import suppress
from foveate.exporting.formats import Runner, run_file
from foveate.models.detectors import detect


class TinyDetector(nn.Module):
    """Two convolutions and two heads, whose scores spread widely, so that NMS has work."""

    def __init__(self, classes: int = 3):
        super().__init__()
        torch.manual_seed(3)
        self.heads = (Head(((20.0, 30.0), (50.0, 40.0)), 16, 1.05), Head(((9.0, 8.0), (14.0, 20.0)), 8, 1.05))
        self.stem, self.down = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 2, 2)
        self.coarse, self.fine = (nn.Conv2d(8, 2 * (5 + classes), 1) for _ in range(2))
        for layer in (self.coarse, self.fine):
            nn.init.normal_(layer.weight, std=2.0)
        self.attention = foveate.attention("cbam", 8, reduction=2, start="paper")

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.attention(self.stem(x))
        return self.coarse(self.down(x)), self.fine(x)


SLOW = [pytest.param(boxes, marks=pytest.mark.slow) for boxes in ("decoded", "outputs")]


@pytest.mark.parametrize("boxes", ["nms", *SLOW])
def test_the_boxes_of_the_file_are_those_of_the_model(boxes: str, tmp_path: Path) -> None:
    model = TinyDetector().eval()
    limits: dict[str, Any] = {"conf": 0.2, "iou": 0.4, "max_det": 9}
    chosen: Any = boxes
    done = foveate.export(model, tmp_path / "a.onnx", (1, 3, 64, 96), boxes=chosen, **limits)
    checks = done.record["checks"]
    assert {check["agreement"] for check in checks} == {1.0}
    assert sum(check["count"] for check in checks) > 30
    assert all(side % 16 == 0 for check in checks for side in check["shapes"][0][2:])
    x = torch.rand(2, 3, 128, 80, generator=torch.Generator().manual_seed(5))
    found = run_file(done.path)([x.numpy()])
    wanted = detect(model, x, **limits)
    assert max(len(one.boxes) for one in wanted) == 9
    for number, one in enumerate(wanted):
        if boxes == "nms":
            here = found[3] == number
            kept = tuple(part[here] for part in found[:3])
        elif boxes == "decoded":
            kept = select(found[0][number], found[1][number], 0.2, 0.4, 9)
        else:
            assert found[0].shape == (2, 16, 8, 5)
            continue
        np.testing.assert_allclose(kept[0], one.boxes, atol=1e-3)
        np.testing.assert_allclose(kept[1], one.scores, atol=1e-5)
        np.testing.assert_array_equal(kept[2], one.labels)


def test_a_task_measures_the_outputs_of_a_file_that_has_nms_inside(tmp_path: Path) -> None:
    model = TinyDetector().eval()
    images = torch.rand(8, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(images[:1])
    far: list[float] = []

    def measure(run: Runner) -> float:
        found = run([images[:1].numpy()])
        far.append(max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, wanted, strict=True)))
        return far[-1]

    limits: dict[str, Any] = {"conf": 0.2, "iou": 0.4, "max_det": 9, "images": images, "int8": True}
    done = foveate.export(
        model, tmp_path / "a.onnx", (1, 3, 64, 96), boxes="nms", dynamic=False, measure=measure, **limits
    )
    int8: dict[str, Any] = done.record["int8"]
    assert [int8["before"], int8["after"]] == far
    assert far[0] < 1e-4 < far[1]
    assert 0 < int8["agreement"] < 1
    assert len(run_file(done.path)([images[:1].numpy()])) == 4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "a.onnx.json"]


def test_suppression_is_that_of_every_image_and_class() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 40, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 10 * torch.rand(2, 40, 2, generator=generator)], 2)
    scores = torch.rand(2, 40, 3, generator=generator)
    rows = suppress(boxes, scores, 300, 0.3, 0.5)
    for image in range(2):
        wanted = select(boxes[image].numpy(), scores[image].numpy(), 0.5, 0.3)
        mine = rows[rows[:, 0] == image]
        found = {(int(label), int(candidate)) for _, label, candidate in mine}
        assert len(found) == len(mine) == len(wanted[1])
        assert sorted(float(scores[image, c, k]) for k, c in found) == sorted(map(float, wanted[1]))


def test_the_operation_is_sound() -> None:
    boxes, scores = torch.tensor([[[0.0, 0, 4, 4], [1, 0, 5, 4]]]), torch.tensor([[[0.9, 0.2], [0.8, 0.7]]])
    torch.library.opcheck(suppress, (boxes, scores, 5, 0.5, 0.1), test_utils=("test_schema", "test_faketensor"))
    assert suppress(boxes, scores, 5, 0.5, 0.1).tolist() == [[0, 0, 0], [0, 1, 1]]
