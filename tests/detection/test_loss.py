import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from detection import by_formula
from detection.examples import HEADS, random_boxes, random_outputs, random_targets
from foveate.detection import loss as module
from foveate.detection.assign import LABEL, POSITIVE, assign
from foveate.detection.heads import Head
from foveate.detection.loss import BOX, CLASSES, OBJECTNESS, binary_cross_entropy, ciou, detection_loss

WEIGHTS = (BOX, OBJECTNESS, CLASSES)
LN2 = math.log(2)
ONE = (Head(((16, 16),), 32),)


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1),
        # one of seven square pixels; centres sqrt 2 apart, diagonal sqrt 18: 1/7 - 1/9
        ([0, 0, 2, 2], [1, 1, 3, 3], 2 / 63),
        # beside each other: 0 - 3^2 / (4^2 + 1^2)
        ([0, 0, 1, 1], [3, 0, 4, 1], -9 / 17),
        # crossed: IoU 4 / 12; centres sqrt 2 apart, diagonal sqrt 32; atan 2 - atan 1/2 = 0.6435011, v = 0.1678281,
        # alpha = v / (2/3 + v) = 0.2011129, alpha v = 0.0337524: 1/3 - 1/16 - 0.0337524
        ([0, 0, 4, 2], [0, 0, 2, 4], 0.2370809),
        # one in the other on one centre: 2 / 8; v = 4 / pi^2 (atan 2 - atan 2)^2 = 0
        ([1, 0.5, 3, 1.5], [0, 0, 4, 2], 0.25),
    ],
)
def test_ciou_by_hand(a: list[float], b: list[float], wanted: float) -> None:
    for xp, array in ((np, np.array), (torch, torch.tensor)):
        assert float(ciou(xp, array(a, dtype=xp.float64), array(b, dtype=xp.float64))) == pytest.approx(
            wanted, abs=1e-6
        )


def test_ciou_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = random_boxes(rng, 300).astype(float), random_boxes(rng, 300).astype(float)
    np.testing.assert_allclose(
        ciou(np, a, b), [by_formula.ciou(*pair) for pair in zip(a, b, strict=True)], rtol=1e-7, atol=1e-8
    )


def gradient_of_ciou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    boxes = torch.from_numpy(a).requires_grad_()
    ciou(torch, boxes, torch.from_numpy(b)).sum().backward()
    assert boxes.grad is not None
    return boxes.grad.numpy()


def difference_quotients(a: np.ndarray, b: np.ndarray, constant: bool) -> np.ndarray:
    """Return the difference quotients of the formula, with alpha as a constant or not."""
    found, h = np.zeros_like(a), 1e-5
    for i, j in np.ndindex(*a.shape):
        weight = by_formula.alpha(a[i], b[i]) if constant else None
        up, down = a[i].copy(), a[i].copy()
        up[j] += h
        down[j] -= h
        found[i, j] = (by_formula.ciou(up, b[i], weight) - by_formula.ciou(down, b[i], weight)) / (2 * h)
    return found


def test_alpha_is_a_constant_to_the_gradient() -> None:
    rng = np.random.default_rng(3)
    a, b = random_boxes(rng, 50).astype(float), random_boxes(rng, 50).astype(float)
    found = gradient_of_ciou(a, b)
    np.testing.assert_allclose(found, difference_quotients(a, b, constant=True), atol=1e-7)
    assert np.abs(found - difference_quotients(a, b, constant=False)).max() > 1e-4  # the comparison can fail


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([5, 5, 5, 5], [5, 5, 5, 5]),
        ([5, 5, 5, 5], [0, 0, 10, 10]),
        ([0, 0, 10, 10], [5, 5, 5, 5]),
        ([5, 5, 9, 5], [5, 5, 5, 9]),
        ([1, 2, 30, 40], [1, 2, 30, 40]),
        ([0, 0, 1e6, 1e6], [0, 0, 0, 0]),
        ([0, 0, 1e-3, 1e6], [0, 0, 8, 8]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_gradient_of_ciou_is_nan(a: list[float], b: list[float], dtype: torch.dtype) -> None:
    boxes = torch.tensor(a, dtype=dtype, requires_grad=True)
    value = ciou(torch, boxes, torch.tensor(b, dtype=dtype))
    value.backward()
    assert torch.isfinite(value)
    assert boxes.grad is not None
    assert torch.isfinite(boxes.grad).all()


def test_cross_entropy_by_hand() -> None:
    """At 0 it is ln 2; at ln 3, where the sigmoid is 3/4, -ln 3/4 for 1 and -ln 1/4 for 0; at 1000 it is 1000 or 0."""
    logits = torch.tensor([0, 0, math.log(3), math.log(3), 1000, -1000, 1000], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([0, 1, 1, 0, 0, 1, 1], dtype=torch.float64)
    found = binary_cross_entropy(torch, logits, targets)
    assert found.tolist() == pytest.approx([LN2, LN2, math.log(4 / 3), math.log(4), 1000, 1000, 0])
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([0.5, -0.5, -0.25, 0.75, 1, -1, 0])


def terms(outputs: Any, targets: Any, heads: Any, **options: Any) -> dict[str, float]:
    return {name: float(value) for name, value in detection_loss(np, outputs, targets, heads, **options).items()}


def test_loss_of_one_cell_by_hand() -> None:
    """Outputs of 0 decode to 16 x 16 around (16, 16), the ground truth; objectness and both classes are ln 2 each."""
    targets = assign(np.array([[8, 8, 24, 24]]), np.array([1]), ONE, (32, 32), 2)
    found = terms([np.zeros((1, 7, 1, 1))], [targets[0][None].astype(float)], ONE, box=3, objectness=2, classes=0.5)
    assert found == pytest.approx({"box": 0, "objectness": 2 * LN2, "classes": LN2, "total": 3 * LN2}, abs=1e-8)


def test_loss_of_a_batch_by_hand() -> None:
    """Three images with one positive: one as above with logits of ln 3, one without objects, one ignored.

    The logits of the objectness and the true class are ln 3. Objectness is ln 4/3 + ln 2 + 0, classes ln 2 + ln 4/3,
    each over 3. The box is as high and twice as wide, with the same centre: IoU 1/2, v = 4 / pi^2 (atan 1 - atan 2)^2 =
    0.0419570, alpha = v / (1/2 + v) = 0.0774185, so 1 - CIoU = 0.5032483.
    """
    truth, none, ignored = np.array([[8, 8, 24, 24]]), np.zeros((0, 4)), np.array([[0, 0, 32, 32]])
    images = [(truth, [1], None), (none, [], None), (none, [], ignored)]
    targets = [np.stack([assign(b, np.array(k, int), ONE, (32, 32), 2, i)[0] for b, k, i in images]).astype(float)]
    output = np.zeros((3, 7, 1, 1))
    output[0, [2, 4, 6]] = [[[math.log(2)]], [[math.log(3)]], [[math.log(3)]]]
    output[2, 4] = 7.0
    found = terms([output], targets, ONE, box=1, objectness=1, classes=1)
    both = (math.log(4 / 3) + LN2) / 3
    assert found["box"] == pytest.approx(0.5032483 / 3, abs=1e-6)
    assert found["objectness"] == pytest.approx(both)
    assert found["classes"] == pytest.approx(both)
    assert found["total"] == pytest.approx(found["box"] + 2 * both)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_the_formula(smoothing: float) -> None:
    rng = np.random.default_rng(0)
    outputs, targets = random_outputs(rng, 3), [target.astype(float) for target in random_targets(rng, 3)]
    wanted = by_formula.loss(outputs, targets, HEADS, WEIGHTS, smoothing)
    assert terms(outputs, targets, HEADS, smoothing=smoothing) == pytest.approx(wanted, rel=1e-7)
    last = [output.transpose(0, 2, 3, 1) for output in outputs]
    assert terms(last, targets, HEADS, smoothing=smoothing, channels_last=True) == pytest.approx(wanted, rel=1e-7)
    tensors = [[torch.from_numpy(x) for x in arrays] for arrays in (outputs, targets)]
    as_torch = detection_loss(torch, tensors[0], tensors[1], HEADS, smoothing=smoothing)
    assert {name: value.item() for name, value in as_torch.items()} == pytest.approx(wanted, rel=1e-7)


def swapped(anchors: Any) -> Any:
    return tuple((height, width) for width, height in anchors)


@pytest.mark.parametrize("mistake", ["anchors", "order", "scale", "stride", "labels", "weights", "axes", "positives"])
def test_a_planted_mistake_is_seen(mistake: str) -> None:
    rng = np.random.default_rng(0)
    outputs, targets, heads = random_outputs(rng, 3), [target.astype(float) for target in random_targets(rng, 3)], HEADS
    wanted = by_formula.loss(outputs, targets, HEADS, WEIGHTS)
    match mistake:
        case "anchors":
            heads = [replace(head, anchors=swapped(head.anchors)) for head in heads]
        case "order":
            heads = [replace(head, anchors=head.anchors[::-1]) for head in heads]
        case "scale":
            heads = [replace(head, scale_xy=1.0) for head in heads]
        case "stride":
            heads = [replace(head, stride=head.stride + 1) for head in heads]
        case "labels":
            targets[1][..., LABEL] = 0
        case "weights":
            targets[1][..., 5] = 1
        case "axes":
            outputs[1][:, [0, 1]] = outputs[1][:, [1, 0]]
        case "positives":
            targets[0][..., POSITIVE] = targets[0][..., 5]
    assert terms(outputs, targets, heads) != pytest.approx(wanted, rel=1e-7)


def test_gradcheck(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here alpha is not constant, as in difference quotients; another test checks that it is a constant."""
    monkeypatch.setattr(module, "constant", lambda xp, x: x)
    rng, coarse = np.random.default_rng(5), HEADS[:1]
    targets = [torch.from_numpy(target.astype(float)) for target in random_targets(rng, 2, coarse)]
    outputs = [torch.from_numpy(output).requires_grad_() for output in random_outputs(rng, 2, coarse)]
    assert targets[0][..., POSITIVE].sum() > 2
    assert torch.autograd.gradcheck(
        lambda *outputs: detection_loss(torch, outputs, targets, coarse, smoothing=0.1)["total"], outputs
    )


@pytest.mark.parametrize("fill", [0.0, 60.0, -60.0, 1e4, -1e4])
def test_gradients_stay_finite(fill: float) -> None:
    targets = [torch.from_numpy(target) for target in random_targets(np.random.default_rng(0), 3)]
    shapes = [output.shape for output in random_outputs(np.random.default_rng(0), 3)]
    outputs = [torch.full(shape, fill, requires_grad=True) for shape in shapes]
    detection_loss(torch, outputs, targets, HEADS)["total"].backward()
    for output in outputs:
        assert output.grad is not None
        assert torch.isfinite(output.grad).all()


def test_a_batch_without_objects_trains_only_the_objectness() -> None:
    targets = [torch.from_numpy(target[1:2]) for target in random_targets(np.random.default_rng(0), 2)]
    outputs = [
        torch.from_numpy(output[:1]).float().requires_grad_() for output in random_outputs(np.random.default_rng(0), 2)
    ]
    found = detection_loss(torch, outputs, targets, HEADS)
    assert (found["box"], found["classes"]) == (0, 0)
    found["total"].backward()
    gradient = outputs[0].grad
    assert gradient is not None
    by_channel = gradient.reshape(1, 2, 8, -1).abs().sum((0, 1, 3))
    assert (by_channel > 0).tolist() == [False] * 4 + [True] + [False] * 3
