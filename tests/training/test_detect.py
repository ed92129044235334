import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foveate.data import BoxData, DigitScenesOptions, open_box_data
from foveate.data.boxes.annotations import LabelledImage
from foveate.data.boxes.box_set import BoxSet, ImagesInMemory
from foveate.data.boxes.collate import BoxCollate, size_at
from foveate.detection.assign import POSITIVE, assign, assign_batch
from foveate.detection.heads import Head
from foveate.models import YOLOv4Tiny
from foveate.models.yolov4_tiny_layers import BACKBONE
from foveate.surgery import attach
from foveate.training import EpochRow, FitOptions, fit
from foveate.training.tasks.detect import begin_epoch, collate_for, evaluate, loss
from training.toy import state_of

HEADS = (Head(((30.0, 40.0), (60.0, 50.0)), 32), Head(((12.0, 16.0),), 16))
CLASSES = 10
SURE = 12.0  # a logit


@pytest.fixture(scope="module")
def scenes() -> BoxData:
    return open_box_data(None, digits=DigitScenesOptions(canvas=64, train=32, val=10, test=10))


class PerfectDetector(nn.Module):
    """Returns the ground truth of the images, in the order of the data set, apart from the given errors."""

    def __init__(self, dataset: BoxSet, missing: int = 0, shift: float = 0.0, label: int = 0, ignored: bool = True):
        super().__init__()
        self.dataset, self.missing, self.shift, self.label, self.ignored = dataset, missing, shift, label, ignored
        self.heads, self.classes, self.seen = HEADS, CLASSES, 0
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> list[Tensor]:
        answers = [self._answer(self.seen + k, (x.shape[3], x.shape[2])) for k in range(len(x))]
        self.seen += len(x)
        return [torch.stack(maps) * self.scale for maps in zip(*answers, strict=True)]

    def _answer(self, index: int, size: tuple[int, int]) -> list[Tensor]:
        truth = self.dataset.truth(index)
        kept = np.flatnonzero(self.ignored | ~truth.ignored)[self.missing :]
        boxes = self.dataset.letterbox(index).to_input(truth.boxes)[kept] + self.shift
        labels = (truth.labels[kept] + self.label) % CLASSES
        maps = []
        for head, target in zip(HEADS, assign(boxes, labels, HEADS, size, CLASSES), strict=True):
            anchors, rows, columns, _ = target.shape
            values = np.full((anchors, 5 + CLASSES, rows, columns), -SURE, np.float32)
            for a, row, column in zip(*np.nonzero(target[..., POSITIVE]), strict=True):
                left, top, right, bottom, _, _, label = target[a, row, column]
                offset = np.array([(left + right) / 2 / head.stride - column, (top + bottom) / 2 / head.stride - row])
                inside = ((offset + (head.scale_xy - 1) / 2) / head.scale_xy).clip(1e-4, 1 - 1e-4)
                values[a, :2, row, column] = np.log(inside / (1 - inside))
                values[a, 2:4, row, column] = np.log(np.array([right - left, bottom - top]) / head.anchors[a])
                values[a, 4, row, column] = values[a, 5 + int(label), row, column] = SURE
            maps.append(torch.from_numpy(values.reshape(-1, rows, columns)))
        return maps


def oblong() -> BoxSet:
    """Images that the letterbox must pad, with a crowd and a difficult object among the objects."""
    random = np.random.default_rng(0)
    pictures = []
    for k in range(6):
        corner = random.uniform(0, (120, 40), (4, 2))
        boxes = np.concatenate([corner, corner + random.uniform(20, 40, (4, 2))], 1).astype(np.float32)
        flags = np.arange(4)
        pictures.append(LabelledImage(f"{k}", (160, 80), boxes, random.integers(0, CLASSES, 4), flags == 2, flags == 3))
    return BoxSet(pictures, ImagesInMemory(np.zeros((6, 80, 160), np.uint8)), 128, seed=0, augment=False, flips=False)


def test_a_perfect_detector_has_a_perfect_score() -> None:
    found = evaluate(PerfectDetector(oblong()).train(), oblong(), batch=4)
    assert found["score"] == pytest.approx(1.0)
    assert found["mAP"] == pytest.approx(1.0)
    assert (found["count"], sum(one["truths"] for one in found["classes"])) == (6, 12)
    plain = evaluate(PerfectDetector(oblong(), ignored=False), oblong())
    assert np.trace(np.array(plain["confusion"])[:CLASSES, :CLASSES]) == np.sum(plain["confusion"]) == 12
    assert plain["loss"] < 0.02


def test_the_confusions_are_counted_above_a_confidence() -> None:
    tables = [
        evaluate(PerfectDetector(oblong(), ignored=False), oblong(), counted=least)["confusion"] for least in (0.5, 1)
    ]
    assert [np.array(table)[:, :CLASSES].sum() for table in tables] == [12, 0]


@pytest.mark.parametrize(
    ("errs", "low", "high"),
    [({"missing": 1}, 0.2, 0.7), ({"shift": 30.0}, 0.0, 0.05), ({"label": 1}, 0.0, 0.05), ({"shift": 6.0}, 0.0, 0.99)],
)
def test_errors_lower_the_score(errs: dict[str, Any], low: float, high: float) -> None:
    assert low <= evaluate(PerfectDetector(oblong(), **errs), oblong())["mAP"] <= high


def test_evaluation_keeps_the_mode_of_every_module() -> None:
    model = PerfectDetector(oblong()).train()
    model.held, model.free = nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3)
    evaluate(model, oblong())
    assert [module.training for module in (model, model.held, model.free)] == [True, False, True]


def test_the_batch_does_not_change_the_loss() -> None:
    dataset = oblong()
    one = dataset.truths[0]
    dataset.truths = (
        LabelledImage("0", one.size, one.boxes[:0], one.labels[:0], one.crowd[:0], one.difficult[:0]),
        *dataset.truths[1:],
    )
    losses = [evaluate(PerfectDetector(dataset, shift=6.0), dataset, batch)["loss"] for batch in (1, 4, 6)]
    assert losses[0] > 0.1
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_ignored_objects_are_neither_learned_nor_counted_as_errors() -> None:
    data = oblong()
    samples = [data[k] for k in range(2)]
    excused = [(image, boxes, labels, torch.ones_like(ignored)) for image, boxes, labels, ignored in samples]
    nothing = [(image, boxes[:0], labels[:0], ignored[:0]) for image, boxes, labels, ignored in samples]

    def of(samples: Any, **errors: Any) -> float:
        return loss(PerfectDetector(data, **errors), BoxCollate(HEADS, CLASSES)(samples), FitOptions()).item()

    assert of(samples, ignored=False) < 0.02
    assert (
        of(samples) == of(samples, ignored=False) < of(nothing)
    )  # the cells of ignored objects have weight 0, however small the objects are
    assert of(excused) < of(nothing)


def test_multi_scale_changes_the_size_from_step_to_step() -> None:
    seen = []

    class Sizes(PerfectDetector):
        def forward(self, x: Tensor) -> list[Tensor]:
            seen.append(tuple(x.shape[2:]))
            return [
                torch.zeros(len(x), len(head.anchors) * 15, x.shape[2] // head.stride, x.shape[3] // head.stride)
                for head in HEADS
            ]

    samples = [oblong()[k] for k in range(2)]
    model, options = Sizes(oblong()), FitOptions(multi_scale=True, seed=3)
    for step in range(12):
        images, targets = collate_for(model, options)(samples, step)
        loss(model, (images, targets), options)
        size = seen[-1][0]
        arrays = [
            [(boxes * (size / 128)).numpy(), labels.numpy(), ignored.numpy()] for _, boxes, labels, ignored in samples
        ]
        for target, expected in zip(targets, assign_batch(arrays, HEADS, (size, size), CLASSES), strict=True):
            assert np.array_equal(target, expected)
    assert seen == [(size_at(step, 3, 128),) * 2 for step in range(12)]
    assert len(set(seen)) > 1
    loss(model, collate_for(model, FitOptions())(samples, 0), FitOptions())
    assert seen[-1] == (128, 128)


def test_mosaics_end_before_the_training_does() -> None:
    switched: list[bool] = []
    options = FitOptions(epochs=4, close_mosaic=1)
    for epoch in range(4):
        begin_epoch(SimpleNamespace(set_mosaic=switched.append), epoch, options)
    begin_epoch(SimpleNamespace(set_mosaic=switched.append), 0, dataclasses.replace(options, mosaic=False))
    assert switched == [True, True, True, False, False]


class Small(nn.Module):
    """Two outputs from a few convolutions."""

    heads, classes = HEADS, CLASSES

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(3, 16, 9, 8, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()
        )
        self.coarse, self.out = nn.Conv2d(16, 30, 3, 2, 1), nn.Conv2d(16, 15, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.fine(x)
        return self.coarse(x), self.out(x)


@pytest.mark.reliability(20)
def test_training_lowers_the_loss_and_workers_change_nothing() -> None:
    scenes = open_box_data(None, digits=DigitScenesOptions(canvas=96, train=32, val=10, test=10))
    options = FitOptions(epochs=4, batch=8, lr=0.01, ema=0.9, multi_scale=True, close_mosaic=2)

    def trained(**changes: Any) -> list[EpochRow]:
        torch.manual_seed(0)
        rows = fit(Small(), scenes, dataclasses.replace(options, **changes), name="detect")
        return [dataclasses.replace(row, seconds=0, waiting=0) for row in rows]

    alone = trained()
    assert alone[-1].train_loss < 0.7 * alone[0].train_loss
    assert trained(workers=2) == alone
    assert trained(multi_scale=False) != alone


def test_amp_trains_a_detector_to_nearly_the_same_loss(scenes: BoxData) -> None:
    """The loss is computed in float32, the convolutions in bfloat16."""
    seen = []

    class Watched(Small):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            outputs = super().forward(x)
            seen.append((self.training, *(output.dtype for output in outputs)))
            return outputs

    losses = []
    for amp in (False, True):
        torch.manual_seed(0)
        losses.append(
            fit(Watched(), scenes, FitOptions(epochs=4, batch=8, lr=0.01, amp=amp), name="detect")[-1].train_loss
        )
        half = torch.bfloat16 if amp else torch.float32
        assert {one for one in seen if one[0]} == {(True, half, half)}
        seen.clear()
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    assert losses[1] != losses[0]


def test_the_backbone_of_yolov4_tiny_is_frozen_and_attention_learns(scenes: BoxData) -> None:
    """The attention is inside the backbone too."""
    torch.manual_seed(0)
    model = YOLOv4Tiny(CLASSES, attention="eca")
    attach(model, "eca", "csp3.merge", example=(1, 3, 64, 64))
    before, seen = state_of(model), []
    fit(
        model,
        scenes,
        FitOptions(epochs=2, batch=16, lr=0.01, freeze_epochs=1),
        lambda row: seen.append(state_of(model)),
        name="detect",
    )

    def moved(state: dict[str, Tensor]) -> set[str]:
        return {name for name, value in state.items() if not torch.equal(value, before[name])}

    backbone = {f"{name}.{part}" for name in BACKBONE for part in dict(model.get_submodule(name).named_parameters())}
    gates = {name for name, _ in model.named_parameters() if "foveate_attention" in name}
    assert len(gates) == 4  # one each of four
    assert {name for name in before if name.split(".")[0] in BACKBONE} & moved(seen[0]) == gates & backbone
    assert {"coarse_head.weight", *gates} <= moved(seen[0])
    assert backbone <= moved(seen[1])
