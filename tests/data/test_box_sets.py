import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from foveate.data.boxes.annotations import LabelledImage
from foveate.data.boxes.box_data import BoxData, open_box_data
from foveate.data.boxes.box_set import BoxSet, ImagesInMemory
from foveate.data.boxes.collate import BoxCollate, rescaled, size_at
from foveate.data.digits.scene_parts import INK
from foveate.data.digits.scenes import DigitScenesOptions
from foveate.data.splits import SPLITS
from foveate.detection.assign import POSITIVE
from foveate.detection.heads import make_heads
from foveate.errors import DataError, UsageError

DIGITS = DigitScenesOptions(canvas=128, train=40, val=10, test=10)
ALONE = DigitScenesOptions(canvas=128, digits=3, fragments=0, train=60, val=10, test=10, seed=1)


@pytest.fixture(scope="module")
def data() -> BoxData:
    return open_box_data(None, digits=DIGITS)


def same(ones: Sequence[Sequence[Tensor]], others: Sequence[Sequence[Tensor]]) -> bool:
    return all(
        torch.equal(a, b) for one, other in zip(ones, others, strict=True) for a, b in zip(one, other, strict=True)
    )


def views(dataset: Any, epoch: int) -> list[Sequence[Tensor]]:
    dataset.set_epoch(epoch)
    return [dataset[i] for i in range(len(dataset))]


def test_samples_are_images_with_boxes(data: BoxData):
    for split in SPLITS:
        image, boxes, labels, ignored = getattr(data, split)[3]
        assert image.shape == (3, 128, 128)
        assert (image.dtype, boxes.dtype, labels.dtype, ignored.dtype) == (
            torch.float32,
            torch.float32,
            torch.int64,
            torch.bool,
        )
        assert 0 <= image.min() <= image.max() <= 1
        assert boxes.shape == (len(labels), 4)
        assert len(labels) == len(ignored)
        assert type(image) is type(boxes) is Tensor


@pytest.mark.parametrize("mosaic", [True, False])
@pytest.mark.parametrize("flips", [True, False])
def test_boxes_follow_the_ink(mosaic: bool, flips: bool):
    """In every augmented view, the box of each whole object is the box of its ink within a pixel or two."""
    train = stencils(flips)
    train.set_mosaic(mosaic)
    found = [off for epoch in range(2) for view in views(train, epoch) for off in misses(view)]
    assert len(found) > 100
    assert max(found) <= 1.5


def stencils(flips: bool = False) -> BoxSet:
    """Return scenes of only digits in black and white, so that the edge of the ink does not depend on a threshold."""
    train = open_box_data(None, digits=ALONE, flips=flips).train
    assert isinstance(train.images, ImagesInMemory)
    train.images = ImagesInMemory(np.where(train.images.images >= INK, 255, 0).astype(np.uint8))
    return train


def misses(view: Sequence[Tensor]) -> list[float]:
    """Return the distance in pixels of each whole, separate box from the box of its ink."""
    image, boxes, _, ignored = view
    size = image.shape[-1]
    found = []
    for k, box in enumerate(boxes):
        wide = (box + torch.tensor([-4, -4, 4, 4])).round().int()
        others = torch.cat([boxes[:k], boxes[k + 1 :]])
        near = ((others[:, :2] < wide[2:]) & (others[:, 2:] > wide[:2])).all(1).any()
        cut = (
            box == box.round()
        ).any()  # a box cut by the edge of a tile ends on a whole pixel; the ink may end before
        if ignored[k] or near or cut or wide.min() < 0 or wide.max() > size:
            continue
        left, top, right, bottom = wide.tolist()
        around = image[0, top:bottom, left:right]
        if torch.cat([around[0], around[-1], around[:, 0], around[:, -1]]).max() > 0.1:
            continue  # the grey border is near
        rows, columns = (torch.nonzero((around >= 0.5 * around.max()).any(axis)).ravel() for axis in (1, 0))
        measured = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + torch.tensor(
            [left, top, left, top]
        )
        found.append(float((measured - box).abs().max()))
    return found


@pytest.mark.parametrize(
    "wrong", [lambda boxes: boxes + 3, lambda boxes: boxes * 1.05, lambda boxes: boxes[:, [1, 0, 3, 2]]]
)
def test_the_ink_check_can_fail(wrong: Callable[[Tensor], Tensor]):
    train = stencils()
    moved = [off for image, boxes, *rest in views(train, 0) for off in misses((image, wrong(boxes), *rest))]
    assert max(moved, default=9) > 1.5


def test_no_ink_is_left_without_a_box():
    """An object with only a narrow part in view stays as ignored, or it would be learned as background."""
    train = stencils()
    ignored = 0
    for image, boxes, _, flags in views(train, 0):
        ink = image[0] > 0.6
        for left, top, right, bottom in boxes.round().int().tolist():
            ink[max(0, top - 3) : bottom + 3, max(0, left - 3) : right + 3] = False
        assert ink.sum() <= 8
        assert (boxes[:, 2:] - boxes[:, :2]).min() >= 1
        assert boxes.min() >= 0
        assert boxes.max() <= 128
        ignored += int(flags.sum())
    assert ignored > 5


@pytest.mark.parametrize("mosaic", [True, False])
def test_crowd_and_difficult_stay_so_in_every_view(mosaic: bool):
    """Each image has a plain object (label 0), a crowd (1) and a difficult one (2), all visible or nearly so."""
    boxes = np.array([[50, 50, 60, 60], [62, 50, 72, 60], [50, 62, 60, 72]], np.float32)
    flags = np.eye(3, dtype=bool)
    picture = LabelledImage("p", (128, 128), boxes, np.arange(3), flags[1], flags[2])
    dataset = BoxSet(
        [picture] * 4, ImagesInMemory(np.full((4, 128, 128), 9, np.uint8)), 128, seed=0, augment=True, flips=True
    )
    dataset.set_mosaic(mosaic)
    found = [
        (int(label), bool(flag))
        for epoch in range(4)
        for *_, labels, flags in views(dataset, epoch)
        for label, flag in zip(labels, flags, strict=True)
    ]
    assert {label for label, _ in found} == {0, 1, 2}
    assert all(flag for label, flag in found if label)
    assert not all(flag for label, flag in found if not label)


def test_views_depend_only_on_seed_epoch_and_index(data: BoxData):
    first = views(data.train, 0)
    assert not same(first[:1], views(data.train, 1)[:1])
    torch.rand(5)
    assert same(first, views(data.train, 0))
    assert same(first, views(copy.deepcopy(data.train), 0))
    assert same(first, views(pickle.loads(pickle.dumps(data.train)), 0))
    other = open_box_data(None, digits=DIGITS, seed=1).train
    assert not torch.equal(first[0][0], other[0][0])
    assert same(views(data.val, 0), views(data.val, 1))


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_never_change_batches(persistent: bool, data: BoxData):
    loader: Any = DataLoader(data.train, batch_size=8, num_workers=2, persistent_workers=persistent, collate_fn=list)  # pyright: ignore[reportArgumentType]
    for epoch, mosaic in ((0, True), (1, True), (1, False)):
        data.train.set_mosaic(mosaic)
        here = views(data.train, epoch)
        assert same([sample for batch in loader for sample in batch], here)
    data.train.set_mosaic(True)


def test_mosaics_can_be_switched_off(data: BoxData):
    objects = {}
    for on in (True, False):
        data.train.set_mosaic(on)
        objects[on] = sum(len(boxes) for _, boxes, *_ in views(data.train, 0))
    assert objects[True] > 1.3 * objects[False]
    data.train.set_mosaic(True)


def of_boxes(
    data: BoxData, boxes: NDArray[np.float32], size: tuple[int, int] = (640, 480), imgsz: int = 416
) -> BoxData:
    """Return data with one training image, which has these boxes."""
    picture = LabelledImage.plain("p", size, boxes, np.zeros(len(boxes), np.int64))
    train = BoxSet([picture], ImagesInMemory(np.zeros((1, 2, 2), np.uint8)), imgsz, seed=0, augment=True, flips=False)
    return replace(data, train=train, size=imgsz)


def squares(sides: Sequence[float]) -> NDArray[np.float32]:
    """Return squares at places that float32 cannot represent exactly."""
    corners = np.random.default_rng(0).uniform(0, 300, len(sides))
    return np.stack([corners, corners, corners + sides, corners + sides], 1).astype(np.float32)


def test_objects_of_one_size_have_anchors_that_differ(data: BoxData):
    """They have 26 pixels in the input; float32's rounding must not count as a difference in size."""
    anchors = of_boxes(data, squares([40.0] * 60)).anchors
    assert anchors[0] == (26, 26)
    assert len(set(anchors)) == 6
    assert (np.diff(np.prod(anchors, 1)) > 2).all()


@pytest.mark.parametrize("tiny", [0.001, 1.0])
def test_specks_make_no_anchor(tiny: float, data: BoxData):
    anchors = of_boxes(data, squares([tiny, tiny, 20, 30, 40, 50, 60, 70])).anchors
    assert np.min(anchors) >= 13


def test_if_all_boxes_are_specks_the_error_names_the_size(data: BoxData):
    with pytest.raises(DataError, match="at imgsz 32") as caught:
        _ = of_boxes(data, squares([3, 5, 9]), (640, 480), 32).anchors
    assert "--imgsz 96 would do" in caught.value.do


def test_letterbox_and_back():
    data = open_box_data(None, digits=DIGITS, imgsz=160)
    for i in range(10):
        truth, (image, boxes, labels, ignored) = data.test.truth(i), data.test[i]
        assert image.shape == (3, 160, 160)
        np.testing.assert_allclose(data.test.letterbox(i).to_image(boxes.numpy()), truth.boxes, atol=1e-3)
        np.testing.assert_array_equal(labels, truth.labels)
        assert not ignored.any()
        assert data.image("test", i).shape == (128, 128, 3)


def test_a_wide_picture_is_padded_with_grey(data: BoxData):
    pixels = np.full((1, 40, 80), 255, np.uint8)
    truth = LabelledImage.plain("wide", (80, 40), np.array([[0, 0, 80, 40]], np.float32), np.array([1]))
    wide = BoxSet([truth], ImagesInMemory(pixels), 64, seed=0, augment=False, flips=False)
    image, boxes, *_ = wide[0]
    assert torch.equal(image[:, 16:48], torch.ones(3, 32, 64))
    assert torch.equal(image[:, :16], torch.full((3, 16, 64), 0.5))
    assert boxes.tolist() == [[0, 16, 64, 48]]


def test_a_batch_has_a_target_for_each_head_that_fits_its_images(data: BoxData):
    samples, heads = [data.val[i] for i in range(4)], make_heads()
    images, targets = BoxCollate(heads, 10)(samples)
    assert torch.equal(images, torch.stack([image for image, *_ in samples]))
    assert [tuple(target.shape) for target in targets] == [(4, 3, 4, 4, 7), (4, 3, 8, 8, 7)]
    assert targets[1][..., POSITIVE].any()
    assert rescaled(images, targets, heads) is images


def test_a_batch_of_a_multi_scale_training_has_targets_for_the_size_of_its_step(data: BoxData):
    samples, heads = [data.val[i] for i in range(4)], make_heads()
    for step in range(10):
        images, targets = BoxCollate(heads, 10, seed=0)(samples, step)
        size = size_at(step, 0, 128)
        assert [target.shape[2:4] for target in targets] == [(size // 32,) * 2, (size // 16,) * 2]
        assert rescaled(images, targets, heads).shape == (4, 3, size, size)
        learnt = torch.cat([target[target[..., POSITIVE] > 0][:, :4] for target in targets])
        assert set(map(tuple, learnt.tolist())) <= {
            tuple(box) for _, boxes, *_ in samples for box in (boxes * (size / 128)).tolist()
        }


def test_sizes_follow_from_seed_and_step():
    sizes = [size_at(step, 0, 128) for step in range(50)]
    assert set(sizes) == {96, 128, 160}
    assert sizes == [size_at(step, 0, 128) for step in range(50)]
    assert sizes != [size_at(step, 1, 128) for step in range(50)]


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (32, [32, 64]),
        (64, [32, 64, 96]),
        (96, [64, 96, 128]),
        (128, [96, 128, 160]),
        (192, [160, 192, 224]),
        (416, range(320, 513, 32)),
    ],
)
def test_sizes_of_the_steps_are_around_the_one_asked_for(size: int, sizes: Sequence[int]):
    """Multiples of 32 from 3/4 to 5/4 of the size; if it is the only one, also the next ones."""
    assert {size_at(step, 0, size) for step in range(100)} == set(sizes)


def test_the_description_is_json_and_differs_between_data(data: BoxData):
    record = json.loads(json.dumps(data.describe()))
    assert record["fingerprint"] == data.fingerprint == open_box_data(None, digits=DIGITS).fingerprint
    assert data.fingerprint != open_box_data(None, digits=ALONE).fingerprint
    assert record["images"] == {"train": 40, "val": 10, "test": 10}
    assert sum(record["counts"]["train"].values()) == sum(len(picture.labels) for picture in data.train.truths)


@pytest.mark.parametrize("augment", [True, False])
def test_training_pictures_are_augmented_unless_that_is_off(augment: bool):
    data = open_box_data(None, digits=DIGITS, augment=augment)
    described = data.describe()["augmentation"]
    assert ("a part at 0.6 to 1.4 times its size, recoloured;" in described) if augment else described is None
    plain = open_box_data(None, digits=DIGITS, augment=False)
    same = [torch.equal(data.train[k][0], plain.train[k][0]) for k in range(5)]
    assert not any(same) if augment else all(same)
    assert torch.equal(data.test[0][0], plain.test[0][0])


@pytest.mark.parametrize("imgsz", [0, -32, 16, 100, 10**6, "64", 64.0, True])
def test_a_senseless_size_is_refused(imgsz: Any):
    with pytest.raises(UsageError, match="multiple of 32"):
        open_box_data(None, imgsz=imgsz)


def test_opening_needs_no_torch_for_its_import():
    program = "import sys, foveate.data.boxes.box_data; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
